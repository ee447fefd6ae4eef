"""Settings that their library refuses to write, written as they are.

The nearest thing that a loader reads is worth more than nothing, and a warning says what is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from canonical_saver.errors import describe
from canonical_saver.publishing.best_effort import BestEffort
from canonical_saver.publishing.sidecars import CONFIG


@dataclass(frozen=True)
class Held:
    """Settings as an object of a library holds them.

    Attributes:
        config: the object.
        owner: where it is, in words of Python.
        changes: what is saved in the place of its own values.
        unsaved: settings that are in no file.
    """

    config: Any
    owner: str
    changes: Mapping[str, Any]
    unsaved: tuple[str, ...] = ()

    def values(self) -> dict[str, Any]:
        """The settings to write."""
        found = {k: v for k, v in _values(self.config).items() if k not in self.unsaved}
        return found | dict(self.changes)


def write(
    name: str,
    held: Held,
    wrong: str,
    staged: BestEffort,
    load: Callable[[dict[str, Any]], object],
    *,
    needed: bool,
) -> None:
    """Write settings as they are, where their own way to be written refuses them.

    Args:
        name: of the file.
        held: the settings.
        wrong: why they were refused.
        staged: where to write.
        load: what a loader will do with them.
        needed: whether the model cannot be loaded without the file, so that it is written even if
            it cannot be loaded with it either.
    """
    dropped: list[str] = []
    refused = ""

    def as_they_are(folder: Path) -> None:
        nonlocal refused
        kept = _storable(held.values(), dropped)
        text = json.dumps(kept, indent=2, sort_keys=True) + "\n"
        try:
            load(json.loads(text))
        except Exception as error:
            if not needed:
                raise
            refused = describe(error)
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")

    owner = held.owner
    by_hand = f"correct {owner} and write {name} by {owner}.save_pretrained(FOLDER)"
    failed = staged.attempt(as_they_are, name)
    if failed:
        staged.warnings.append(f"{name} was left out, it would not load ({failed}); {by_hand}")
    elif refused:
        staged.warnings.append(f"{name} was written, but does not load ({refused}); {by_hand}")
    elif dropped:
        staged.warnings.append(
            f"{name} was written without {', '.join(dropped)} ({wrong}); {by_hand}"
        )
    else:
        staged.warnings.append(
            f"{name} was written as it is, but is not valid ({wrong}); {by_hand}"
        )


def write_own(
    name: str, config: Any, changes: Mapping[str, Any], wrong: str, staged: BestEffort
) -> None:
    """Write a model's configuration, or that of its generation, as it is, see :func:`write`."""
    if name == CONFIG:
        held = Held(config, "model.config", changes)
        write(name, held, wrong, staged, type(config).from_dict, needed=True)
    else:
        held = Held(config, "model.generation_config", changes, ("compile_config",))
        load = getattr(type(config), "from_dict", GenerationConfig.from_dict)
        write(name, held, wrong, staged, load, needed=False)


def _values(config: Any) -> dict[str, Any]:
    """The settings of a configuration, those that differ from the defaults if it can tell."""
    if isinstance(config, Mapping):
        return dict(config)
    for way in ("to_diff_dict", "to_dict"):
        try:
            return dict(getattr(config, way)())
        except Exception:  # whatever it is about, the next way may not meet it
            continue
    found = {name: value for name, value in vars(config).items() if not name.startswith("_")}
    kind = getattr(config, "model_type", None)
    return found | ({"model_type": kind} if kind else {})


_LEFT_OUT = object()


def _storable(value: Any, dropped: list[str], place: str = "", around: tuple[int, ...] = ()) -> Any:
    """Turn a value into the nearest one that JSON can hold.

    Args:
        value: the value.
        dropped: gains the places of what JSON cannot hold in any form.
        place: of the value, such as ``rope_parameters.factor``.
        around: identities of the values that it is in; what holds itself has no form.
    """
    if id(value) in around:
        dropped.append(place)
        return _LEFT_OUT
    within = (*around, id(value))
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if callable(getattr(value, "tolist", None)):  # tensors and numbers of numpy
        return value.tolist()
    if isinstance(value, set | frozenset):
        value = sorted(value, key=str)
    elif callable(getattr(value, "to_dict", None)):
        value = value.to_dict()
    if isinstance(value, Mapping):
        kept = {
            str(k): _storable(v, dropped, f"{place}.{k}" if place else str(k), within)
            for k, v in value.items()
        }
        return {k: v for k, v in kept.items() if v is not _LEFT_OUT}
    if isinstance(value, list | tuple):
        found = [_storable(v, dropped, f"{place}[{n}]", within) for n, v in enumerate(value)]
        return [v for v in found if v is not _LEFT_OUT]
    dropped.append(place)
    return _LEFT_OUT
