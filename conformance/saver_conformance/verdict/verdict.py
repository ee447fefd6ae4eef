"""From what every case showed to one verdict, by clause and mode.

Pure data and pure functions. Nothing is green by not having run: a clause passes in a mode only
when every planned case that it applies to was run and checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from saver_conformance.cases.case import MODES, Case, Mode
from saver_conformance.cases.coverage import Coverage
from saver_conformance.observation.finding import Finding
from saver_conformance.observation.reading import Comparison
from saver_conformance.spec import Level
from saver_conformance.verdict.causes import FailureCause
from saver_conformance.verdict.failures import FailedSave

if TYPE_CHECKING:
    from saver_conformance.verdict.part import Part

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
            ``error``: the harness failed; ``skipped``: the saver hung or died in cases like it, or
            the run was interrupted before.
        reason: why it was not run; empty when it was.
        ran: findings by clause, of every check that was made.
        blocked: reason by clause, of every check that a defect prevented.
        seconds: time from the start of training to the last check.
        failure: how the save ended where not every rank returned.
        stopped_by: ids of the clauses that are broken by what kept the case from being checked
            whole, or from being run; empty when something else did.
        unchanged: whether the save returned and left the output folder as it was.
        comparisons: what readers made of the folder and of a plain save, where they were asked.
    """

    case: Case
    clauses: tuple[str, ...]
    status: Literal["run", "unavailable", "error", "skipped"]
    reason: str = ""
    ran: Mapping[str, tuple[Finding, ...]] = field(default_factory=dict)
    blocked: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    failure: FailedSave | None = None
    stopped_by: tuple[str, ...] = ()
    unchanged: bool = False
    comparisons: tuple[Comparison, ...] = ()

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
        empty_cases: number of ``cases`` in which nothing lay in the folder before the save.
        empty_planned: the same of ``planned``.
        reason: why it was not checked everywhere; empty when it was.
        stopped_by: ids of the clauses that are broken wherever it was not checked, and are the
            reason for that; empty when something else is.
    """

    clause: str
    mode: Mode
    status: Status
    cases: int = 0
    planned: int = 0
    findings: tuple[Finding, ...] = ()
    reason: str = ""
    stopped_by: tuple[str, ...] = ()
    empty_cases: int = 0
    empty_planned: int = 0

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
        steps: wall-clock seconds of each step of ``saver_conformance.execution.timing``; those of
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
        saver: its address, or its name.
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
        failures: why saves raised, hung or died, by cause.
        interrupted: whether it was ended before every planned case was run.
        address: from where a saver that is called by a name is imported; a replay needs no more.
        case_set: the name of the set of planned cases; empty where nothing is planned.
        part: which part of a run it is about; None for a whole run.
        known_as: what the saver is called where the run was started; empty where it was made there.
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
    failures: tuple[FailureCause, ...] = ()
    interrupted: bool = False
    address: str = ""
    case_set: str = ""
    part: Part | None = None
    known_as: str = ""

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

        0: every claimed MUST was checked in every planned case and holds or is waived, or could
           not be checked because of one that is waived.
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
        # Waived raises excuse what they hide, but not a run in which nothing was saved at all.
        saved = any(item.status == "run" and item.failure is None for item in self.records)
        if not saved or not every_mode_ran or any(map(self._is_missing, self.records)):
            return INCONCLUSIVE
        if any(row.status not in ("pass", "waived") for row in claimed):
            return INCONCLUSIVE
        return CONFORMS

    def _is_missing(self, record: CaseRecord) -> bool:
        """Whether the case was not run, for another reason than a waived clause."""
        if record.status == "run":
            return False
        mode = record.case.mode
        waived = {row.clause for row in self.rows if (row.mode, row.status) == (mode, "waived")}
        return not (record.stopped_by and waived.issuperset(record.stopped_by))


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
        # A merged model is held to clauses that its mode's other saves are not.
        demanded = {*applies[clause], *(mode for one, mode in planned if one == clause)}
        for mode in sorted(demanded, key=MODES.index):
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
    stopped_by: tuple[str, ...] = ()
    if all(record.stopped_by for record in missing):
        stopped_by = tuple(sorted({clause for item in missing for clause in item.stopped_by}))
    return Row(
        clause=clause,
        mode=mode,
        status=status,
        cases=len(checked),
        planned=len(records),
        findings=findings,
        reason=reason,
        stopped_by=stopped_by,
        empty_cases=sum(record.case.saves_into_empty_folder for record in checked),
        empty_planned=sum(record.case.saves_into_empty_folder for record in records),
    )


def _why_not(clause: str, record: CaseRecord) -> str:
    if record.status == "run":
        return f"{UNCHECKED}{record.blocked.get(clause, 'no check was made')}"
    return record.reason
