"""Cases whose save is to be a whole model, with the adapter merged into it.

Each mode that trains a LoRA has one in ``survey`` and in ``gate``, and there each kind of adapter
that is not held as a LoRA has one, the modes in turns. ``nightly`` has every kind in every mode
that trains it. They are no axis of the tables: what a merge depends on is the kind of adapter, the
dtypes and the engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from saver_conformance.cases.adapter_kinds import adapter_kinds, names
from saver_conformance.cases.case import MODES, Case, Mode
from saver_conformance.cases.strategies import all_axes, is_valid, make_case, with_family

RESULTS = ("merged", "relora")
"""The values of the axis ``result`` that ask for a merge, by different keys of ``cfg``."""
KINDS = names()
"""Kinds of adapters, the simplest first."""

_OTHER_VALUES: tuple[Mapping[str, Any], ...] = (
    {"targets": "all", "modules_to_save": ("lm_head",), "sizes": "odd", "max_shard_size": 4_000}
    | {"existing_save": "adapter"},
    {"targets": "all", "dtype": "bfloat16", "tokenizer": "chat", "existing_save": "sharded"},
    {"dora": True, "names": ("default", "style"), "foreign_files": "strangers"},
    {"targets": "all", "dtype": "mixed", "vocabulary": "resized", "bias": "lora_only"},
)
"""Values of the other axes, taken in turns; those that do not fit are left out."""


def merging(mode: Mode, *, kinds: bool = True, wide: bool = False) -> tuple[Case, ...]:
    """The cases of ``mode``; the same everywhere, and none where nothing can be merged.

    Args:
        mode: the mode.
        kinds: whether other kinds of adapters than LoRA have cases.
        wide: whether every kind has one in this mode, and LoRA one with each of the other values.
    """
    modes = _modes()
    if mode not in modes:
        return ()
    place = modes.index(mode)
    if wide:
        chosen = [(KINDS[0], place + turn) for turn in range(len(_OTHER_VALUES))]
        chosen += [(kind, place + number) for number, kind in enumerate(KINDS[1:])]
    else:
        chosen = [(KINDS[0], place), *(_dealt(mode) if kinds else ())]
    rows = (_row(mode, kind, turn) for kind, turn in chosen if _merges(mode, kind))
    return tuple(make_case(mode, row, seed=place) for row in rows)


@cache
def _modes() -> tuple[Mode, ...]:
    return tuple(mode for mode in MODES if mode.method == "lora")


def _merges(mode: Mode, kind: str) -> bool:
    known = all_axes(mode, wide=True)["kind"]
    return kind in known and is_valid(with_family({"kind": kind, "result": RESULTS[0]}), mode)


def _dealt(mode: Mode) -> Iterator[tuple[str, int]]:
    """The kinds that meet ``mode``: each meets one mode, another one than its neighbours."""
    for number, kind in enumerate(filter(_is_held_otherwise, KINDS)):
        able = [one for one in _modes() if one.definition.pairs and _merges(one, kind)]
        if able and able[number % len(able)] == mode:
            yield kind, number


def _is_held_otherwise(kind: str) -> bool:
    """Whether other tensors or modules hold it than those of a LoRA on layers."""
    usual, own = (adapter_kinds()[name] for name in (KINDS[0], kind))
    return (own.peft_type, own.marks, own.needs) != (usual.peft_type, usual.marks, usual.needs)


def _row(mode: Mode, kind: str, turn: int) -> dict[str, Any]:
    count = len(_OTHER_VALUES)
    result = RESULTS[(turn + turn // count) % len(RESULTS)]  # not in step with the other values
    row = dict(with_family({"kind": kind, "result": result}))
    axes = all_axes(mode)
    for name, other in _OTHER_VALUES[turn % count].items():
        if other in axes.get(name, ()) and is_valid({**row, name: other}, mode):
            row[name] = other
    return row
