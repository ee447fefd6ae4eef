"""Tables of all pairs of values: the gate's for each mode, and a night's across engines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from saver_conformance.cases import engines
from saver_conformance.cases.case import Case, Mode
from saver_conformance.cases.pairwise import Row, Table, cover_pairs
from saver_conformance.cases.strategies import (
    all_axes,
    axes_of,
    fitting,
    is_valid,
    make_case,
    paired,
    row_of,
    why_invalid,
)

ENGINE = "engine"
"""The axis that a table of several modes has beside those of their cases."""


@cache
def pairs_of(mode: Mode) -> Table:
    """The table of all pairs of ``mode``'s axes that the gate has."""
    return cover_pairs(paired(axes_of(mode), mode), lambda row: is_valid(row, mode))


def gate_table(mode: Mode) -> Iterator[Case]:
    """The rows of its table as cases; the gate deals them among the engines that share it."""
    rows = list(enumerate(pairs_of(mode).rows))
    sharing = engines.sharing_a_table(mode.engine)
    dealt = rows[sharing.index(mode.engine) :: len(sharing)] if sharing else rows
    axes = axes_of(mode)
    unpaired = {name: axes[name] for name in axes if name not in pairs_of(mode).axes}
    for turn, (seed, row) in enumerate(dealt):
        values = {**row, **_by_turns(unpaired, turn)}
        yield make_case(mode, fitting(values, mode), seed=seed)


def _by_turns(axes: Mapping[str, Sequence[Any]], turn: int) -> dict[str, Any]:
    """A value of each axis; the axes do not go through theirs in step."""
    return {
        name: values[(turn + turn // len(values) * place) % len(values)]
        for place, (name, values) in enumerate(axes.items())
    }


@cache
def pairs_across(modes: tuple[Mode, ...]) -> Table:
    """The table of all pairs of the engines of ``modes``, every family and kind, and all else.

    Args:
        modes: modes of one method.
    """
    axes = {name: tuple(values) for name, values in axes_across(modes, axes_of).items()}
    return cover_pairs(axes, lambda row: not why_not(row, modes))


def night_table(mode: Mode, among: Iterable[Mode]) -> Iterator[Case]:
    """The rows of the table of those ``among`` which have ``mode``'s method, with its engine."""
    modes = tuple(other for other in among if other.method == mode.method)
    for seed, row in enumerate(pairs_across(modes).rows):
        if row[ENGINE] == mode.engine:
            yield make_case(mode, row, seed=seed)


def axes_across(modes: Sequence[Mode], axes: Any = all_axes) -> dict[str, Sequence[Any]]:
    """The engines of ``modes`` as an axis, and the values that any of them has on the others.

    Args:
        modes: modes of one method.
        axes: gives the axes of a mode.
    """
    every = [axes(mode, wide=True) for mode in modes]
    together: dict[str, Sequence[Any]] = {ENGINE: [mode.engine for mode in modes]}
    for name in dict.fromkeys(name for own in every for name in own):
        values = dict.fromkeys(value for own in every for value in own.get(name, ()))
        together[name] = list(values)
    return together


def why_not(row: Row, modes: Sequence[Mode]) -> str:
    """Why no case of ``modes`` has these values of :func:`axes_across`; empty when one has."""
    values = {name: value for name, value in row.items() if name != ENGINE}
    if ENGINE not in row:
        return why_invalid(values)
    mode = Mode(modes[0].method, row[ENGINE])
    known = _values(mode)
    for name, value in values.items():
        if value not in (known[name] if name in known else (_simplest(name, modes),)):
            return f"{mode.engine} is tried with other values of {name}"
    return why_invalid(values, mode)


def why_nowhere(row: Row, modes: Sequence[Mode]) -> str:
    """Like :func:`why_not`; without an engine, why the simplest one has none if no other has."""
    if ENGINE in row:
        return why_not(row, modes)
    first = ""
    for mode in modes:
        reason = why_not({ENGINE: mode.engine, **row}, modes)
        if not reason:
            return ""
        first = first or reason
    return first


def row_across(case: Case, modes: tuple[Mode, ...]) -> dict[str, Any]:
    """The values of ``case`` on the axes of ``modes``; an axis that it lacks has its simplest."""
    own = {ENGINE: case.mode.engine, **row_of(case)}
    return {name: _simplest(name, modes) for name in axes_across(modes) if name not in own} | own


@cache
def _values(mode: Mode) -> Mapping[str, Sequence[Any]]:
    return all_axes(mode, wide=True)


def _simplest(axis: str, modes: Sequence[Mode]) -> Any:
    return next(_values(mode)[axis][0] for mode in modes if axis in _values(mode))
