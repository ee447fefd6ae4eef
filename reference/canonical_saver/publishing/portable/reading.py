"""What the installed library reads in a configuration file."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from canonical_saver.publishing.portable.key import Key, part

_FLOAT = "__float__"


class Reader:
    """Reads configurations as a loader does, each once: that takes about a millisecond.

    Args:
        kind: the class of the configuration.
    """

    def __init__(self, kind: type[Any]) -> None:
        self._kind = kind
        self._found: dict[str, dict[str, Any] | None] = {}

    def reads(self, config: Mapping[str, Any]) -> bool:
        """Whether the class can read a configuration at all."""
        return self._values(config) is not None

    def reads_alike(
        self, one: Mapping[str, Any], other: Mapping[str, Any], *, but: Collection[str] = ()
    ) -> bool:
        """Whether two configurations are the same to the class.

        Args:
            one: what ``config.json`` may have.
            other: the same.
            but: settings that may differ, by the names of the configurations around them and
                their own, with dots between.
        """
        first, second = self._values(one), self._values(other)
        if first is None or second is None:
            return False
        return _text(first, but) == _text(second, but)

    def makes(self, key: Key, setting: str, config: Mapping[str, Any]) -> bool:
        """Whether the class makes a setting of ``key`` where there is none.

        Args:
            key: with a number as its value.
            setting: its name, next to the key.
            config: what ``config.json`` has, the setting included.
        """
        expected, found = part(config, key.inside)[setting], []
        for number in (key.value, key.value + 1):
            made = replace(key, value=number).put(config)
            part(made, key.inside).pop(setting)
            values = self._values(made)
            found.append(values and part(values, key.inside).get(setting))
        return bool(found[0] == expected != found[1])

    def _values(self, config: Mapping[str, Any]) -> dict[str, Any] | None:
        text = json.dumps(config)
        if text not in self._found:
            self._found[text] = self._read(config)
        return self._found[text]

    def _read(self, config: Mapping[str, Any]) -> dict[str, Any] | None:
        with _quiet():
            try:
                return dict(self._kind.from_dict(_decoded(config)).to_dict())
            except Exception:  # the class has its own rules, and may be anybody's
                return None


def _decoded(value: Any) -> Any:
    """A copy of what JSON has, with the numbers that transformers writes as objects."""
    if isinstance(value, Mapping):
        if set(value) == {_FLOAT}:
            return float(value[_FLOAT])
        return {key: _decoded(one) for key, one in value.items()}
    return [_decoded(one) for one in value] if isinstance(value, list) else value


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library from telling of what is only tried."""
    log = logging.getLogger("transformers")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _text(values: Any, but: Collection[str]) -> str:
    # A NaN is not equal to itself, and 1 equals True.
    return json.dumps(_without(values, but), sort_keys=True, default=repr)


def _without(values: Any, but: Collection[str], place: str = "") -> Any:
    if not isinstance(values, Mapping):
        return values
    found = {}
    for key, value in values.items():
        here = f"{place}.{key}" if place else str(key)
        if here not in but:
            found[str(key)] = _without(value, but, here)
    return found
