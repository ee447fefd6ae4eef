"""What the installed library reads in a configuration file."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any


class Reader:
    """Reads configurations as a loader does, from files.

    Args:
        kind: the class of the configuration.
        path: of the file that it comes to, for its name.
    """

    def __init__(self, kind: type[Any], path: Path) -> None:
        self._kind, self._name = kind, path.name

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

    def _values(self, config: Mapping[str, Any]) -> dict[str, Any] | None:
        with TemporaryDirectory() as folder, _quiet():
            path = Path(folder) / self._name
            path.write_text(json.dumps(config), encoding="utf-8")
            try:
                read = self._kind.from_json_file(path)
                return dict(read.to_dict())
            except Exception:  # the class has its own rules, and may be anybody's
                return None


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
