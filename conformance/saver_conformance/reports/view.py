"""What the page shows, in its order, with the ids that its links lead to.

The matrices are made of cells; a cell leads into a panel below, one for each area and one for each
mode of a saver. What fails stands first everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, zip_longest
from typing import TypeVar

from saver_conformance.cases import engines
from saver_conformance.cases.method import METHODS
from saver_conformance.reports.plain_text import (
    failure_heading,
    failure_lines,
    told_failures,
    unchanged_text,
)
from saver_conformance.reports.report_diff import compare
from saver_conformance.reports.report_diff_text import tally
from saver_conformance.reports.result import Clause, Evidence, Result, Row
from saver_conformance.reports.status import (
    VERDICTS,
    WORDS,
    WORST_FIRST,
    CellStatus,
    Folder,
    in_area,
    in_mode,
    in_mode_and_area,
    modes_by_status,
    of_clause,
    tried_modes,
    why,
)
from saver_conformance.safe_text import count


@dataclass(frozen=True, slots=True)
class Cell:
    """One field of a matrix.

    Attributes:
        status: what it says.
        column: the head of its column.
        line: the head of its line.
        target: id of what it opens; empty when there is nothing.
        share: in how many of the modes that were tried, as ``12/21``; empty where it is one mode.
        rest: the other statuses of these modes, each with its number; empty when there is none.
    """

    status: CellStatus
    column: str
    line: str
    target: str
    share: str = ""
    rest: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a matrix: its head, what stands below that, where it leads, and the cells."""

    name: str
    note: str
    target: str
    cells: tuple[Cell, ...]

    @property
    def statuses(self) -> str:
        """The statuses of the cells, each once, for the filter."""
        return _join(cell.status for cell in self.cells)


@dataclass(frozen=True, slots=True)
class Matrix:
    """A table of statuses.

    Attributes:
        caption: what it shows.
        heads: of a line's name, and of its note; the note's is empty when there is none.
        columns: the heads of the columns.
        lines: in order.
    """

    caption: str
    heads: tuple[str, str]
    columns: tuple[str, ...]
    lines: tuple[Line, ...]

    @property
    def groups(self) -> tuple[tuple[Line, ...], ...]:
        """The lines, those of one saver together."""
        return tuple(tuple(lines) for _, lines in groupby(self.lines, lambda line: line.target))


@dataclass(frozen=True, slots=True)
class Modes:
    """The modes in which a clause has one status, each with the id of its panel."""

    status: CellStatus
    links: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One clause, over all modes or in one.

    Attributes:
        id: where links find it; empty where none leads to it.
        clause: the clause.
        status: what came out.
        scope: how often it was checked and found broken.
        modes: by status; empty in a panel of one mode.
        reasons: why it was not checked, or is waived.
        evidence: the finding of the simplest case; None when there is none.
    """

    id: str
    clause: Clause
    status: CellStatus
    scope: str
    modes: tuple[Modes, ...]
    reasons: tuple[str, ...]
    evidence: Evidence | None


@dataclass(frozen=True, slots=True)
class Group:
    """An area in the panel of a mode.

    Attributes:
        id: where the cells of the matrix of modes and areas lead.
        area: the area.
        status: of the area in the mode.
        told: what is not as it should be, in full.
        rest: the other clauses, each with the id of its entry.
    """

    id: str
    area: str
    status: CellStatus
    told: tuple[Entry, ...]
    rest: tuple[tuple[Clause, CellStatus, str], ...]


@dataclass(frozen=True, slots=True)
class Panel:
    """What unfolds for an area, or for a mode.

    Attributes:
        id: where cells lead.
        name: of the area or mode.
        status: as in the cell.
        note: what to expect inside.
        entries: the clauses of an area; empty for a mode.
        groups: the areas of a mode; empty for an area.
    """

    id: str
    name: str
    status: CellStatus
    note: str
    entries: tuple[Entry, ...] = ()
    groups: tuple[Group, ...] = ()


@dataclass(frozen=True, slots=True)
class FailedSaves:
    """Saves from which not every rank returned.

    Attributes:
        heading: what became of them.
        text: how, where, how often, and when.
        evidence: the finding of the simplest case; None when there is none.
    """

    heading: str
    text: str
    evidence: Evidence | None


@dataclass(frozen=True, slots=True)
class Subject:
    """A saver and all that is known of it.

    Attributes:
        key: begins the ids of everything that belongs to it.
        name: the saver's address, with the versions that tell it from another run of the same.
        result: the run.
        verdict: in one or two words.
        why: the verdict's reason.
        unchanged: in how many cases the save did nothing, as a sentence; empty when in none.
        failures: saves from which not every rank returned; they come first.
        areas: panels, the worst first.
        modes: panels of the claimed modes, the worst first.
        matrix: modes by areas.
    """

    key: str
    name: str
    result: Result
    verdict: str
    why: str
    unchanged: str
    failures: tuple[FailedSaves, ...]
    areas: tuple[Panel, ...]
    modes: tuple[Panel, ...]
    matrix: Matrix

    @property
    def statuses(self) -> str:
        """The statuses of the areas, each once, for the filter."""
        return _join(panel.status for panel in self.areas)


Unfolding = TypeVar("Unfolding", Panel, Group)


def view_subjects(results: Sequence[Result]) -> tuple[Subject, ...]:
    """``results`` in their order, with names and ids that are all different."""
    by_saver: dict[str, list[Result]] = {}
    for result in results:
        by_saver.setdefault(result.saver, []).append(result)
    return tuple(
        view_subject(result, f"s{number}", _name(result, by_saver[result.saver]))
        for number, result in enumerate(results, start=1)
    )


def view_subject(result: Result, key: str, name: str = "") -> Subject:
    """``result``, with ids that begin with ``key``."""
    return Subject(
        key=key,
        name=name or result.saver,
        result=result,
        verdict=VERDICTS[result.exit_code],
        why=why(result),
        unchanged=unchanged_text(result),
        failures=tuple(
            FailedSaves(failure_heading(item), "\n".join(failure_lines(result, item)), item.example)
            for item in told_failures(result)
        ),
        areas=_worst_first(_area_panel(result, key, area) for area in result.areas),
        modes=_worst_first(_mode_panel(result, key, mode) for mode in result.modes),
        matrix=_modes_by_areas(result, key),
    )


FOLDERS: dict[Folder, str] = {
    "any": "Savers by areas of the spec",
    "empty": "Into an empty folder",
    "used": "Into a folder in which something lies",
}
"""The captions of the comparisons by areas."""


def folders_told_apart(subjects: Iterable[Subject]) -> tuple[Folder, ...]:
    """The comparisons by areas that the reports allow: reports of the first days know one only."""
    rows = [row for item in subjects for row in item.result.rows]
    if any(row.empty is None and row.status != "not claimed" for row in rows):
        return ("any",)
    return ("empty", "used")


def savers_by_areas(subjects: Iterable[Subject], folder: Folder = "any") -> Matrix:
    """The comparison of savers by areas, over the saves into one kind of folder."""
    subjects = tuple(subjects)
    areas = tuple(dict.fromkeys(area for item in subjects for area in item.result.areas))
    lines = []
    for item in subjects:
        result = item.result
        cases = f"{result.executed} of {count(result.expected, 'case')}"
        note = f"{item.verdict}, {count(len(result.modes), 'mode')}, {cases}"
        lines.append(Line(item.name, note, item.key, _cells_by_areas(item, areas, folder)))
    return Matrix(FOLDERS[folder], ("saver", "verdict"), areas, tuple(lines))


def savers_by_modes(subjects: Iterable[Subject]) -> Matrix:
    """The comparison of savers by modes: a line for each method that a saver claims."""
    lines = []
    subjects = tuple(subjects)
    claimed = {mode for item in subjects for mode in item.result.modes}
    columns = tuple(
        engine
        for engine in engines.names()
        if claimed.intersection(f"{method}-{engine}" for method in METHODS)
    )
    for item in subjects:
        for method in METHODS:
            modes = [f"{method}-{engine}" for engine in columns]
            if not set(modes) & set(item.result.modes):
                continue
            cells = []
            for engine, mode in zip(columns, modes, strict=True):
                target = f"{item.key}-{mode}" if mode in item.result.modes else ""
                head = f"{item.name}, {method}"
                cells.append(Cell(in_mode(item.result, mode), engine, head, target))
            lines.append(Line(item.name, method, item.key, tuple(cells)))
    return Matrix("Savers by modes", ("saver", "method"), columns, tuple(lines))


def savers_over_time(subjects: Iterable[Subject]) -> Matrix | None:
    """The savers with several reports, each with its runs from the newest to the oldest.

    A line says what changed since the run below it. None when no saver has several.
    """
    by_saver: dict[str, list[Subject]] = {}
    for item in subjects:
        by_saver.setdefault(item.result.saver, []).append(item)
    several = [items for items in by_saver.values() if len(items) > 1]
    areas = tuple(
        dict.fromkeys(area for items in several for item in items for area in item.result.areas)
    )
    lines = []
    for items in several:
        ordered = sorted(items, key=lambda item: item.result.time, reverse=True)
        for item, before in zip_longest(ordered, ordered[1:]):
            changed = f"; {tally(compare(before.result, item.result))}" if before else ""
            note = f"{item.result.time[:10]}, {item.verdict}{changed}"
            cells = _cells_by_areas(item, areas)
            lines.append(Line(item.name, note, item.key, cells))
    if not lines:
        return None
    return Matrix("Savers over versions", ("saver", "verdict"), areas, tuple(lines))


def _cells_by_areas(
    item: Subject, areas: Iterable[str], folder: Folder = "any"
) -> tuple[Cell, ...]:
    return tuple(_cell_of_area(item, area, folder) for area in areas)


def _cell_of_area(item: Subject, area: str, folder: Folder) -> Cell:
    target = f"{item.key}-{area}" if area in item.result.areas else ""
    modes = modes_by_status(item.result, area, folder)
    if not modes:
        over_all = in_area(item.result, area)
        untold = over_all if over_all in ("not claimed", "no demand") else "not tried"
        return Cell(untold, area, item.name, target)
    (worst, number), *others = modes.items()
    share = f"{number}/{tried_modes(item.result, area, folder)}"
    rest = ", ".join(f"{WORDS[status]} {count}" for status, count in others if status != "pass")
    return Cell(worst, area, item.name, target, share, rest)


def _name(result: Result, same: Sequence[Result]) -> str:
    """The saver's address, with the versions, the profile or else the time of this run of it."""
    differing = [
        f"{name} {version}"
        for name, version in result.versions.items()
        if any(other.versions.get(name) != version for other in same)
    ]
    if any(other.profile != result.profile for other in same):
        differing.append(result.profile)
    if len(same) > 1 and not differing:
        differing.append(result.time.replace(":", "."))
    return f"{result.saver} ({', '.join(differing)})" if differing else result.saver


def _modes_by_areas(result: Result, key: str) -> Matrix:
    lines = []
    for mode in result.modes:
        cells = []
        for area in result.areas:
            status = in_mode_and_area(result, mode, area)
            target = "" if status == "no demand" else f"{key}-{mode}-{area}"
            cells.append(Cell(status, area, mode, target))
        lines.append(Line(mode, "", f"{key}-{mode}", tuple(cells)))
    return Matrix("Modes by areas of the spec", ("mode", ""), result.areas, tuple(lines))


def _area_panel(result: Result, key: str, area: str) -> Panel:
    clauses = (clause for clause in result.clauses.values() if clause.area == area)
    entries = [_entry(result, key, clause) for clause in clauses]
    entries.sort(key=lambda entry: WORST_FIRST.index(entry.status))
    note = _count_statuses(entry.status for entry in entries)
    return Panel(f"{key}-{area}", area, in_area(result, area), note, entries=tuple(entries))


def _mode_panel(result: Result, key: str, mode: str) -> Panel:
    groups = _worst_first(_groups(result, key, mode))
    rows = [row.status for row in result.rows if row.mode == mode]
    note = _count_statuses(rows)
    return Panel(f"{key}-{mode}", mode, in_mode(result, mode), note, groups=groups)


def _groups(result: Result, key: str, mode: str) -> Iterator[Group]:
    by_clause = {row.clause: row for row in result.rows if row.mode == mode}
    for area in result.areas:
        told: list[Entry] = []
        rest: list[tuple[Clause, CellStatus, str]] = []
        for clause in result.clauses.values():
            if clause.area != area or not clause.applies_to((mode,)):
                continue
            row = by_clause.get(clause.id)
            if row is None or row.status in ("pass", "not claimed"):
                status: CellStatus = row.status if row else "not tried"
                rest.append((clause, status, f"{key}-{clause.id}"))
            else:
                told.append(_entry_in_mode(row, clause))
        told.sort(key=lambda entry: WORST_FIRST.index(entry.status))
        if told or rest:
            status = in_mode_and_area(result, mode, area)
            yield Group(f"{key}-{mode}-{area}", area, status, tuple(told), tuple(rest))


def _entry(result: Result, key: str, clause: Clause) -> Entry:
    rows = [row for row in result.rows if row.clause == clause.id]
    cause = result.causes.get(clause.id)
    return Entry(
        id=f"{key}-{clause.id}",
        clause=clause,
        status=of_clause(result, clause),
        scope=_describe_scope(rows),
        modes=tuple(_modes_by_status(rows, key)),
        reasons=tuple(dict.fromkeys(row.reason for row in rows if row.reason)),
        evidence=cause.example if cause else None,
    )


def _entry_in_mode(row: Row, clause: Clause) -> Entry:
    reasons = (row.reason,) if row.reason else ()
    scope = _describe_scope([row])
    return Entry("", clause, row.status, scope, (), reasons, row.evidence)


def _describe_scope(rows: list[Row]) -> str:
    if not any(row.planned for row in rows):
        return ""
    cases, planned = sum(row.cases for row in rows), sum(row.planned for row in rows)
    findings = sum(row.findings for row in rows)
    told = f", {count(findings, 'finding')}" if findings else ""
    return f"checked in {cases} of {count(planned, 'case')}{told}"


def _modes_by_status(rows: Iterable[Row], key: str) -> Iterator[Modes]:
    by_status: dict[CellStatus, list[tuple[str, str]]] = {}
    for row in rows:
        by_status.setdefault(row.status, []).append((row.mode, f"{key}-{row.mode}-{row.area}"))
    for status in sorted(by_status, key=WORST_FIRST.index):
        yield Modes(status, tuple(by_status[status]))


def _count_statuses(statuses: Iterable[CellStatus]) -> str:
    found = list(statuses)
    return ", ".join(f"{found.count(item)} {WORDS[item]}" for item in WORST_FIRST if item in found)


def _worst_first(items: Iterable[Unfolding]) -> tuple[Unfolding, ...]:
    return tuple(sorted(items, key=lambda item: WORST_FIRST.index(item.status)))


def _join(statuses: Iterable[CellStatus]) -> str:
    return " ".join(dict.fromkeys(status.replace(" ", "-") for status in statuses))
