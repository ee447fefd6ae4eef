"""All pairs of the values of all axes, in few rows.

Most defects need one value, or two that meet; random draws leave pairs out. The generator is
greedy and deterministic: the same axes give the same rows everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

Row = Mapping[str, Any]
Valid = Callable[[Row], bool]
Pair = frozenset[tuple[str, Any]]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows that cover pairs of values.

    Attributes:
        rows: one value for every axis each.
        covered: number of pairs of values that stand together in some row.
        possible: number of pairs that stand together in any valid row at all.
        axes: names of the axes.
    """

    rows: tuple[Row, ...]
    covered: int
    possible: int
    axes: tuple[str, ...] = ()


def cover_pairs(axes: Mapping[str, Sequence[Any]], valid: Valid = lambda row: True) -> Table:
    """Rows of valid values, such that every possible pair of values stands in one of them.

    Args:
        axes: the values of each axis, the simplest first; ties go to the simpler value.
        valid: whether a row is allowed. It sees unfinished rows too, and may only refuse those
            that no further value makes valid.

    Returns:
        The table; ``covered`` equals ``possible``.
    """
    wanted = [
        frozenset({(first, a), (second, b)})
        for first, second in combinations(axes, 2)
        for a in axes[first]
        for b in axes[second]
    ]
    uncovered = dict.fromkeys(wanted)  # a set that keeps its order
    rows: list[Row] = []
    impossible = 0
    while uncovered:
        pair = next(iter(uncovered))
        row = _complete(dict(pair), axes, valid, uncovered)
        if row is None:
            impossible += 1
            del uncovered[pair]
            continue
        rows.append(row)
        for found in pairs_in(row):
            uncovered.pop(found, None)
    possible = len(wanted) - impossible
    covered = {pair for row in rows for pair in pairs_in(row)}
    return Table(tuple(rows), len(covered), possible, tuple(axes))


def _complete(
    partial: Row, axes: Mapping[str, Sequence[Any]], valid: Valid, uncovered: Mapping[Pair, None]
) -> Row | None:
    """``partial`` with a value for every axis, each chosen for the uncovered pairs it brings."""
    if not valid(partial):
        return None
    missing = [name for name in axes if name not in partial]
    if not missing:
        return {name: partial[name] for name in axes}
    name = missing[0]

    def gain(value: Any) -> int:
        return sum(frozenset({(name, value), other}) in uncovered for other in partial.items())

    for value in sorted(axes[name], key=gain, reverse=True):  # stable: ties go to the simpler
        if row := _complete({**partial, name: value}, axes, valid, uncovered):
            return row
    return None


def pairs_in(row: Row) -> Iterator[Pair]:
    """All pairs of values that stand together in ``row``."""
    return map(frozenset, combinations(row.items(), 2))
