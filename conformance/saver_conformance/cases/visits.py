"""A few cases for each family and kind of adapter that the gate's table of pairs has no room for.

Each gets two engines for each method, other ones than its neighbours, so that each engine meets
some of them and the gate grows by a few cases a mode. The other axes take values in turns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from saver_conformance.cases.case import Case, Mode
from saver_conformance.cases.engines import engines
from saver_conformance.cases.method import METHODS, Method
from saver_conformance.cases.strategies import WIDE, all_axes, is_valid, make_case, with_family

ENGINES_OF: Mapping[Method, int] = {"full": 2, "lora": 2, "qlora": 1}
"""Engines that each family and each kind meets, by method."""

_OTHER_VALUES: tuple[Mapping[str, Any], ...] = (
    {"targets": "all", "vocabulary": "resized", "tokenizer": "chat", "existing_save": "sharded"},
    {"sizes": "odd", "dtype": "bfloat16", "max_shard_size": 4_000, "special_values": True},
    {"existing_save": "adapter", "wrapper": "checkpointing", "sizes": "odd"},
    {"dtype": "mixed", "foreign_files": "strangers", "tokenizer": "chat"},
)
"""Values of the other axes, taken in turns; those that do not fit are left out."""


def visits(mode: Mode) -> tuple[Case, ...]:
    """The cases of ``mode``; the same everywhere."""
    return tuple(
        make_case(mode, _row(mode, axis, value, turn), seed=turn)
        for turn, (axis, value, at) in enumerate(_visitors(mode.method))
        if at == mode.engine
    )


def visitors(method: Method) -> Iterator[tuple[str, str]]:
    """The axis and the value of each family and kind that ``method`` meets outside of the table."""
    for axis, values in WIDE.items():
        inside = all_axes(Mode(method, "single")).get(axis, values)
        yield from ((axis, value) for value in values if value not in inside)


@cache
def _visitors(method: Method) -> tuple[tuple[str, str, str], ...]:
    """Each value with the engines that it meets."""
    found = []
    tables = [name for name, engine in engines().items() if engine.pairs]
    for turn, (axis, value) in enumerate(visitors(method)):
        start = 2 * turn + METHODS.index(method)
        around = [tables[(start + 3 * step) % len(tables)] for step in range(len(tables))]
        able = [engine for engine in around if is_valid({axis: value}, Mode(method, engine))]
        found += [(axis, value, engine) for engine in able[: ENGINES_OF[method]]]
    return tuple(found)


def _row(mode: Mode, axis: str, value: str, turn: int) -> dict[str, Any]:
    row = dict(with_family({axis: value}))
    axes = all_axes(mode)
    for name, other in _OTHER_VALUES[turn % len(_OTHER_VALUES)].items():
        if name in axes and is_valid({**row, name: other}, mode):
            row[name] = other
    return row
