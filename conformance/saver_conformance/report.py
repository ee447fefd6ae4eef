"""A verdict as a folder: ``report.json``, the cases that failed, and the pages made of them.

``report.json`` has the form that ``page/report.schema.json`` describes. Everything else for people
and for CI (the page, the summary, JUnit, the badge) is made of it, by ``saver_conformance.page``.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from saver_conformance.case import Adapter, Case, Mode
from saver_conformance.causes import FailureCause
from saver_conformance.finding import Finding
from saver_conformance.page import VERSION, write_pages
from saver_conformance.spec import SPEC
from saver_conformance.surroundings import Surroundings, look_around
from saver_conformance.verdict import CaseRecord, Row, Verdict

REPORT_FILE = "report.json"
CASES_FOLDER = "cases"
SMALLEST_CASE_FILE = "smallest-case.json"
"""Where ``explore`` leaves the smallest failing case."""


@dataclass(frozen=True, slots=True)
class Cause:
    """All findings of one clause, told by the simplest case.

    Attributes:
        clause: the clause's id.
        example: a finding of the simplest case.
        modes: the modes in which the clause is broken.
        cases: number of cases in which it is broken.
        findings: number of findings.
    """

    clause: str
    example: Finding
    modes: tuple[Mode, ...]
    cases: int
    findings: int


def group_by_cause(rows: Sequence[Row]) -> tuple[Cause, ...]:
    """The findings of ``rows`` by clause, the clause with the simplest case first."""
    by_clause: dict[str, list[Finding]] = {}
    for row in rows:
        if row.findings:
            by_clause.setdefault(row.clause, []).extend(row.findings)
    causes = [
        Cause(
            clause=clause,
            example=min(findings, key=lambda finding: complexity(finding.case)),
            modes=tuple(dict.fromkeys(finding.case.mode for finding in findings)),
            cases=len({finding.case for finding in findings}),
            findings=len(findings),
        )
        for clause, findings in by_clause.items()
    ]
    return tuple(sorted(causes, key=lambda cause: complexity(cause.example.case)))


def complexity(case: Case) -> tuple[int, int]:
    """How far ``case`` is from the simplest: number of unusual values, then its length."""
    unusual = _count_unusual(case, skipped=("mode", "adapter", "world_size", "seed"))
    if case.adapter is not None:
        unusual += _count_unusual(case.adapter, skipped=("alpha",))
    return unusual, len(case.to_json())


def replay_command(case: Case, saver: str, file: Path | None = None) -> str:
    """A command that replays ``case``, from ``file`` if it lies there."""
    tail = f" --saver {shlex.quote(saver)}"
    if file is not None:
        return f"saver-conformance replay {shlex.quote(str(file))}{tail}"
    return f"saver-conformance replay -{tail} <<< {shlex.quote(case.to_json())}"


def case_file(folder: Path, case: Case) -> Path:
    """Where a report in ``folder`` keeps ``case``."""
    digest = hashlib.sha256(case.to_json().encode()).hexdigest()[:8]
    return folder / CASES_FOLDER / f"{case.mode}-{digest}.json"


def write_report(verdict: Verdict, folder: Path) -> None:
    """Write ``report.json``, a file for each case with findings, and the pages into ``folder``."""
    (folder / CASES_FOLDER).mkdir(parents=True, exist_ok=True)
    examples = [cause.example for cause in verdict.failures]
    for case in {*(finding.case for finding in verdict.findings), *examples}:
        case_file(folder, case).write_text(case.to_json() + "\n")
    if verdict.smallest is not None:
        (folder / SMALLEST_CASE_FILE).write_text(verdict.smallest.to_json() + "\n")
    plain = to_plain(verdict, folder, look_around(verdict.saver))
    (folder / REPORT_FILE).write_text(json.dumps(plain, indent=2) + "\n")
    write_pages(plain, folder)


def to_plain(verdict: Verdict, folder: Path, surroundings: Surroundings) -> dict[str, Any]:
    """The content of ``report.json`` in ``folder``."""
    seeds = [record.case.seed for record in verdict.records]
    return {
        "version": VERSION,
        "saver": verdict.saver,
        "profile": verdict.profile,
        "modes": [mode.name for mode in verdict.modes],
        "exit_code": verdict.exit_code,
        "totals": {
            "executed": verdict.executed,
            "expected": verdict.expected,
            "findings": len(verdict.findings),
            "seconds": round(verdict.seconds, 1),
        },
        "surroundings": asdict(surroundings),
        "seeds": {"smallest": min(seeds), "largest": max(seeds)} if seeds else None,
        "pairs": asdict(verdict.pairs) if verdict.pairs else None,
        "cases_a_minute": {pace.engine: round(pace.per_minute, 1) for pace in verdict.paces},
        "seconds_by_step": {
            pace.engine: {step: round(seconds, 1) for step, seconds in pace.steps.items()}
            for pace in verdict.paces
        },
        "spec": {clause: _plain_clause(clause) for clause in verdict.levels},
        "clauses": [_plain_row(row, verdict, folder) for row in verdict.rows],
        "failures": [_plain_failure(cause, verdict, folder) for cause in verdict.failures],
        "interrupted": verdict.interrupted,
        "causes": [_plain_cause(cause, verdict, folder) for cause in group_by_cause(verdict.rows)],
        "waiver_faults": list(verdict.waiver_faults),
        "not_run": [_plain_record(item) for item in verdict.records if item.status != "run"],
        "smallest_case": json.loads(verdict.smallest.to_json()) if verdict.smallest else None,
    }


def _plain_clause(clause: str) -> dict[str, Any]:
    """The sentence at the time of the run; the spec goes on."""
    item = SPEC[clause]
    return {
        "level": item.level,
        "modes": list(item.modes),
        "title": item.title,
        "text": item.text,
        "reason": item.reason,
    }


def _plain_row(row: Row, verdict: Verdict, folder: Path) -> dict[str, Any]:
    return {
        "clause": row.clause,
        "level": verdict.levels[row.clause],
        "mode": row.mode.name,
        "status": row.status,
        "cases": row.cases,
        "planned": row.planned,
        "reason": row.reason,
        "findings": [
            _plain_finding(item, verdict.saver, folder)
            for item in sorted(row.findings, key=lambda item: complexity(item.case))
        ],
    }


def _plain_cause(cause: Cause, verdict: Verdict, folder: Path) -> dict[str, Any]:
    return {
        "clause": cause.clause,
        "modes": [mode.name for mode in cause.modes],
        "cases": cause.cases,
        "findings": cause.findings,
        "example": _plain_finding(cause.example, verdict.saver, folder),
    }


def _plain_failure(cause: FailureCause, verdict: Verdict, folder: Path) -> dict[str, Any]:
    return {
        "kind": cause.kind,
        "exception": cause.exception,
        "place": cause.place,
        "message": cause.message,
        "cases": cause.cases,
        "modes": [mode.name for mode in cause.modes],
        "values": {axis: list(values) for axis, values in cause.values.items()},
        "explained": cause.explained,
        "clauses": list(cause.clauses),
        "text": cause.text,
        "case": json.loads(cause.example.to_json()),
        "replay": replay_command(cause.example, verdict.saver, case_file(folder, cause.example)),
    }


def _plain_finding(finding: Finding, saver: str, folder: Path) -> dict[str, Any]:
    plain = {
        item.name: getattr(finding, item.name)
        for item in fields(finding)
        if item.name not in ("case", "clause")
    }
    return {
        **plain,
        "case": json.loads(finding.case.to_json()),
        "replay": replay_command(finding.case, saver, case_file(folder, finding.case)),
    }


def _plain_record(record: CaseRecord) -> dict[str, Any]:
    return {
        "case": json.loads(record.case.to_json()),
        "status": record.status,
        "reason": record.reason,
    }


def _count_unusual(data: Case | Adapter, skipped: tuple[str, ...]) -> int:
    return sum(
        getattr(data, item.name) != item.default
        for item in fields(data)
        if item.name not in skipped
    )
