"""From what every case showed to one verdict, by clause and mode.

Pure data and pure functions. Nothing is green by not having run: a clause passes in a mode only
when every planned case that it applies to was run and checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from saver_conformance.case import MODES, Case, Mode
from saver_conformance.coverage import Coverage
from saver_conformance.finding import Finding
from saver_conformance.spec import Level

Status = Literal["pass", "fail", "deviation", "not claimed", "unavailable", "waived", "error"]

UNCHECKED = "not checked: "
"""How the reason begins for which a clause was not checked in a case that was run."""

CONFORMS, BROKEN, INCONCLUSIVE, HARNESS_FAILED = 0, 1, 2, 3
"""Exit codes; the documentation of ``Verdict.exit_code`` says when."""


@dataclass(frozen=True, slots=True)
class CaseRecord:
    """What became of one planned case.

    Attributes:
        case: the case.
        clauses: ids of the clauses that demand something in it.
        status: ``run``: trained, saved and checked; ``unavailable``: a library is missing;
            ``error``: the harness failed; ``skipped``: its mode was given up before, because the
            saver kept ruining its ranks.
        reason: why it was not run; empty when it was.
        ran: findings by clause, of every check that was made.
        blocked: reason by clause, of every check that a defect prevented.
        seconds: time from the start of training to the last check.
        unchanged: whether the save returned and left the output folder as it was.
    """

    case: Case
    clauses: tuple[str, ...]
    status: Literal["run", "unavailable", "error", "skipped"]
    reason: str = ""
    ran: Mapping[str, tuple[Finding, ...]] = field(default_factory=dict)
    blocked: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    unchanged: bool = False

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings of the case."""
        return tuple(finding for findings in self.ran.values() for finding in findings)


@dataclass(frozen=True, slots=True)
class Row:
    """One clause in one mode.

    Attributes:
        clause: the clause's id.
        mode: the mode.
        status: what came out.
        cases: number of cases in which the clause was checked.
        planned: number of cases in which it should have been checked.
        findings: where it is broken.
        reason: why it was not checked everywhere; empty when it was.
    """

    clause: str
    mode: Mode
    status: Status
    cases: int = 0
    planned: int = 0
    findings: tuple[Finding, ...] = ()
    reason: str = ""

    @property
    def area(self) -> str:
        """The part of the clause's id before the number."""
        return self.clause.partition("-")[0]


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast one engine's cases went, the start of its world left out.

    Attributes:
        engine: the engine.
        cases: number of cases trained, saved, read back and reloaded.
        seconds: wall-clock time that went by while they were at hand, checks of theirs that overlap
            with the next engine's training left out.
        steps: wall-clock seconds of each step of ``saver_conformance.stopwatch``; those of
            different cases overlap.
    """

    engine: str
    cases: int
    seconds: float
    steps: Mapping[str, float] = field(default_factory=dict)

    @property
    def per_minute(self) -> float:
        """Cases a minute."""
        return 60 * self.cases / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run says about a saver.

    Attributes:
        saver: its address.
        profile: name of the profile.
        modes: the claimed modes.
        rows: one for every clause and mode that the plan touches, and one ``not claimed`` for
            every clause in every other mode that it applies to.
        records: what became of every planned case.
        levels: the level of every clause that has a check.
        seconds: duration of the run.
        paces: speed by engine.
        smallest: the case that ``explore`` shrank a broken MUST to.
        waiver_faults: waivers that match nothing, or that nothing needs.
        pairs: which pairs of values of the axes were tried; None for a replay.
    """

    saver: str
    profile: str
    modes: tuple[Mode, ...]
    rows: tuple[Row, ...]
    records: tuple[CaseRecord, ...]
    levels: Mapping[str, Level]
    seconds: float = 0.0
    paces: tuple[Pace, ...] = ()
    smallest: Case | None = None
    waiver_faults: tuple[str, ...] = ()
    pairs: Coverage | None = None

    @property
    def executed(self) -> int:
        """Number of cases that were run and checked."""
        return sum(record.status == "run" for record in self.records)

    @property
    def expected(self) -> int:
        """Number of cases that were planned."""
        return len(self.records)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings, of every level."""
        return tuple(finding for row in self.rows for finding in row.findings)

    def count(self, status: Status) -> int:
        """Number of rows with ``status``."""
        return sum(row.status == status for row in self.rows)

    @property
    def exit_code(self) -> int:
        """The verdict as a process's exit code.

        0: every claimed MUST was checked in every planned case and holds or is waived.
        1: a MUST is broken, or a waiver is wrong.
        2: inconclusive: something claimed was not run or not checked, or nothing was.
        3: the harness failed.
        """
        musts = [row for row in self.rows if self.levels[row.clause] == "MUST"]
        claimed = [row for row in musts if row.status != "not claimed"]
        if any(row.status == "fail" for row in claimed) or self.waiver_faults:
            return BROKEN
        if any(record.status == "error" for record in self.records):
            return HARNESS_FAILED
        every_mode_ran = {row.mode for row in claimed if row.cases} == set(self.modes)
        if not claimed or not every_mode_ran or self.executed < self.expected:
            return INCONCLUSIVE
        if any(row.status not in ("pass", "waived") for row in claimed):
            return INCONCLUSIVE
        return CONFORMS


def aggregate(
    records: Sequence[CaseRecord],
    modes: Sequence[Mode],
    levels: Mapping[str, Level],
    applies: Mapping[str, Iterable[Mode]],
) -> tuple[Row, ...]:
    """The rows of ``records``, in the order of the spec and of the modes.

    Args:
        records: what became of every planned case.
        modes: the claimed modes.
        levels: the level of every clause, in the order of the spec.
        applies: the modes of every clause.
    """
    planned: dict[tuple[str, Mode], list[CaseRecord]] = {}
    for record in records:
        for clause in record.clauses:
            planned.setdefault((clause, record.case.mode), []).append(record)
    rows = []
    for clause in levels:
        for mode in sorted(applies[clause], key=MODES.index):
            if mode not in modes:
                rows.append(Row(clause, mode, "not claimed"))
            elif (clause, mode) in planned:
                rows.append(_row(clause, mode, levels[clause], planned[clause, mode]))
    return tuple(rows)


def _row(clause: str, mode: Mode, level: Level, records: Sequence[CaseRecord]) -> Row:
    checked = [record for record in records if clause in record.ran]
    findings = tuple(finding for record in checked for finding in record.ran[clause])
    missing = [record for record in records if clause not in record.ran]
    reason = _why_not(clause, missing[0]) if missing else ""
    status: Status
    if findings:
        status = "fail" if level == "MUST" else "deviation"
    elif any(record.status == "error" for record in missing):
        status = "error"
    elif missing:
        status = "unavailable"
    else:
        status = "pass"
    return Row(clause, mode, status, len(checked), len(records), findings, reason)


def _why_not(clause: str, record: CaseRecord) -> str:
    if record.status == "run":
        return f"{UNCHECKED}{record.blocked.get(clause, 'no check was made')}"
    return record.reason
