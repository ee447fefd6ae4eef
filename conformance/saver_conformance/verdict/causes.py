"""Why saves fail: the axis values that failed cases share and that no saved case has.

Pure functions over cases. Failures with one kind, exception and place may still have several
causes, and one cause may need values of more than one axis.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, reduce
from itertools import combinations
from operator import and_
from typing import Any

from saver_conformance.cases.case import MODES, Case, Mode
from saver_conformance.cases.engines import engines
from saver_conformance.cases.strategies import all_axes, row_of
from saver_conformance.verdict.failures import FailedSave, Kind

Row = Mapping[str, Any]
"""The value of a case on each axis that it has."""
Values = Mapping[str, tuple[Any, ...]]
"""For each axis that matters, the values on which saves fail."""

LARGEST_EXPLANATION = 3
"""Axes that an explanation may name; the plan covers pairs of values, and few triples."""
FEWEST_CASES = 2
"""Cases that an explanation must cover when it leaves others out; one case proves nothing."""
NAMED_MODES = 5
"""Modes that are named one by one in a line of text."""

_ENDS: Mapping[Kind, str] = {
    "raised": "the saver raised",
    "hung": "the saver hung",
    "died": "a rank died",
}


@dataclass(frozen=True, slots=True)
class FailureCause:
    """Failures of one kind, exception and place, and the axis values that lead to them.

    Attributes:
        kind: how the saves end.
        exception: as in ``FailedSave``.
        place: as in ``FailedSave``.
        message: that of the example.
        failed: the cases that fail so.
        values: for each axis that matters, the values on which saves fail. Each of these cases
            has one of them on each axis, and no saved case does. Empty when every case fails, or
            when no reason is known.
        explained: whether the values tell the failed cases from the saved ones.
        example: the failed case with the fewest unusual values.
        clauses: ids of the clauses about ranks that the saves break.
    """

    kind: Kind
    exception: str
    place: str
    message: str
    failed: tuple[Case, ...]
    values: Values
    explained: bool
    example: Case
    clauses: tuple[str, ...]

    @property
    def cases(self) -> int:
        """Number of cases that fail so."""
        return len(self.failed)

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The modes of these cases."""
        return tuple(dict.fromkeys(case.mode for case in self.failed))

    @property
    def text(self) -> str:
        """The cause as one line of plain text."""
        place = f" at {self.place}" if self.place else ""
        exception = f" ({self.exception}{place})" if self.exception else ""
        cases = "1 case" if self.cases == 1 else f"{self.cases} cases"
        few = len(self.modes) <= NAMED_MODES
        modes = ", ".join(m.name for m in self.modes) if few else f"{len(self.modes)} modes"
        return f"{_ENDS[self.kind]}{exception} in {cases} of {modes}: {self.when}"

    @property
    def when(self) -> str:
        """The values of the axes with which it happens, in words."""
        if not self.explained:
            return "no value of an axis distinguishes them from the cases that were saved"
        if not self.values:
            return "in every case that was tried"
        if self.cases == 1:
            return f"the only case tried in which {describe(self.values)}"
        return f"wherever {describe(self.values)}"


@dataclass(frozen=True, slots=True)
class Explanation:
    """Conditions that hold in failed cases and in no saved one.

    Attributes:
        values: the conditions, by axis; empty when every case fails.
        covered: indices of the failed cases in which they hold.
        explained: false for the failed cases that no conditions tell from the saved ones.
    """

    values: Values
    covered: tuple[int, ...]
    explained: bool = True


def learn(failures: Sequence[FailedSave], saved: Sequence[Case]) -> tuple[FailureCause, ...]:
    """The causes of ``failures``, the one with the most cases first.

    Args:
        failures: the saves that failed.
        saved: the cases from which every rank returned.
    """
    passing = [read_row(case) for case in saved]
    causes = [
        _make_cause([group[index] for index in found.covered], found.values, found.explained)
        for group in _by_name(failures)
        for found in explain([read_row(failure.case) for failure in group], passing)
    ]
    return tuple(sorted(causes, key=lambda cause: -cause.cases))


def why_skip(
    case: Case, failures: Sequence[FailedSave], saved: Sequence[Case], enough: Mapping[Kind, int]
) -> FailureCause | None:
    """The cause for which ``case`` would fail like others; None when it is to be tried.

    Beside the values that tell failed from saved cases, ``case`` must have every unusual value
    that all of the failed cases have: which of these matters is known only when one without it
    has been tried.

    Args:
        case: the case.
        failures: saves that failed in its mode.
        saved: the cases of its mode from which every rank returned.
        enough: for each kind, the number of failed cases from which a cause is believed.
    """
    row = read_row(case)
    passing = [read_row(item) for item in saved]
    for group in _by_name(failures):
        failing = [read_row(failure.case) for failure in group]
        for found in explain(failing, passing):
            if not found.explained or len(found.covered) < enough[group[0].kind]:
                continue
            shared = _shared_unusual([failing[index] for index in found.covered])
            values = {**shared, **found.values}
            if matches(row, values):
                return _make_cause([group[index] for index in found.covered], values, True)
    return None


def explain(failing: Sequence[Row], passing: Sequence[Row]) -> tuple[Explanation, ...]:
    """The fewest and smallest sets of conditions that tell ``failing`` from ``passing``.

    Every failing case is in one of them; those that nothing tells apart come last.
    """
    left = list(range(len(failing)))
    found: list[Explanation] = []
    while left:
        values = _smallest([failing[index] for index in left], passing)
        if values is None:
            found.append(Explanation({}, tuple(left), explained=False))
            break
        covered = tuple(index for index in left if matches(failing[index], values))
        found.append(Explanation(values, covered))
        left = [index for index in left if index not in covered]
    return tuple(found)


def read_row(case: Case) -> dict[str, Any]:
    """The value of ``case`` on every axis that may explain a failure."""
    # Of axes that tell as much, the first is named; what is done besides the save comes last.
    return {
        **row_of(case),
        "method": case.mode.method,
        "engine": case.mode.engine,
        "world_size": case.world_size,
        "nodes": case.nodes,
        "disks": case.disks,
        "replicas": case.replicas,
        "setting": case.setting,
        "result": case.result,
        "after": case.after.mode.method if case.after else None,
        "probe": case.probe,
    }


def matches(row: Row, values: Values) -> bool:
    """Whether a case has one of the values on each of the axes that are named."""
    return all(axis in row and row[axis] in allowed for axis, allowed in values.items())


def describe(values: Values) -> str:
    """Conditions in words."""
    return " and ".join(
        f"{axis} is {' or '.join(_word(value) for value in allowed)}"
        for axis, allowed in values.items()
    )


@dataclass(frozen=True, slots=True)
class _Condition:
    """Values of one axis; the cases that have one of them are bits of a mask.

    Attributes:
        axis: name of the axis.
        values: the values.
        failing: the failed cases that have one of them.
        passing: the saved cases that have one of them.
        usual: whether they are the axis's simplest value.
    """

    axis: str
    values: tuple[Any, ...]
    failing: int
    passing: int
    usual: bool


def _smallest(failing: Sequence[Row], passing: Sequence[Row]) -> Values | None:
    """The fewest conditions that hold in no passing case and in all, or else most, of the failing.

    None when no conditions hold in enough of them.
    """
    everything, nobody = (1 << len(failing)) - 1, (1 << len(passing)) - 1
    conditions = list(_conditions(failing, passing))
    best: tuple[int, ...] = ()
    chosen: tuple[_Condition, ...] | None = None
    for size in range(LARGEST_EXPLANATION + 1):
        for group in combinations(conditions, size):
            if reduce(and_, (item.passing for item in group), nobody):
                continue
            covered = reduce(and_, (item.failing for item in group), everything)
            # Single values say more than several, and unusual ones more than usual ones.
            rank = (covered.bit_count(), -size, *_preference(group))
            if covered and (chosen is None or rank > best):
                best, chosen = rank, group
        if chosen is not None and best[0] == len(failing):
            break
    if chosen is None or best[0] < min(FEWEST_CASES, len(failing)):
        return None
    return {item.axis: item.values for item in chosen}


def _preference(group: Sequence[_Condition]) -> tuple[int, int]:
    return -sum(len(item.values) for item in group), -sum(item.usual for item in group)


def _conditions(failing: Sequence[Row], passing: Sequence[Row]) -> Iterator[_Condition]:
    """For each axis each value of a failing case, and all such values together."""
    for axis in dict.fromkeys(axis for row in failing for axis in row):
        values = tuple(dict.fromkeys(row[axis] for row in failing if axis in row))
        groups = [(value,) for value in values] + ([values] if len(values) > 1 else [])
        for group in groups:
            condition = _Condition(
                axis,
                group,
                _mask(failing, axis, group),
                _mask(passing, axis, group),
                usual=_usual_values().get(axis) in group,
            )
            if condition.passing.bit_count() < len(passing):  # or it tells nothing
                yield condition


def _mask(rows: Sequence[Row], axis: str, values: tuple[Any, ...]) -> int:
    return sum(1 << at for at, row in enumerate(rows) if matches(row, {axis: values}))


def _shared_unusual(rows: Sequence[Row]) -> Values:
    """The values, other than an axis's simplest, that all rows have."""
    engine = engines().get(rows[0].get("engine", ""))
    own = {axis: values[0] for axis, values in engine.axes.items()} if engine else {}
    usual = {**_usual_values(), **own}
    return {
        axis: (value,)
        for axis, value in rows[0].items()
        if axis in usual and value != usual[axis]
        if all(row.get(axis) == value for row in rows)
    }


@cache
def _usual_values() -> Mapping[str, Any]:
    """The simplest value of each axis."""
    apart: dict[str, Any] = {"world_size": 2, "nodes": 1, "replicas": 1, "disks": "shared"}
    apart |= {"probe": "none", "setting": "usual", "result": "trained", "after": None}
    axes = {axis: values[0] for mode in reversed(MODES) for axis, values in all_axes(mode).items()}
    return apart | axes


def _by_name(failures: Sequence[FailedSave]) -> tuple[list[FailedSave], ...]:
    named: defaultdict[tuple[str, str, str], list[FailedSave]] = defaultdict(list)
    for failure in failures:
        named[failure.name].append(failure)
    return tuple(named.values())


def _make_cause(group: Sequence[FailedSave], values: Values, explained: bool) -> FailureCause:
    example = min(group, key=lambda failure: len(_shared_unusual([read_row(failure.case)])))
    return FailureCause(
        *(example.kind, example.exception, example.place, example.message),
        failed=tuple(failure.case for failure in group),
        values=values,
        explained=explained,
        example=example.case,
        clauses=tuple(dict.fromkeys(clause for failure in group for clause in failure.clauses)),
    )


def _word(value: Any) -> str:
    if isinstance(value, tuple):
        return "+".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value) or "its own"
