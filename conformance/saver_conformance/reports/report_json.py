"""A verdict as a folder: ``report.json``, the cases that failed, and the pages made of them.

``report.json`` has the form that ``report.schema.json`` describes. Everything else for people
and for CI (the page, the summary, JUnit, the badge) is made of it, by
``saver_conformance.reports``.
"""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from saver_conformance.cases.case import Case, Mode
from saver_conformance.cases.complexity import complexity
from saver_conformance.observation.finding import Finding
from saver_conformance.observation.observation import RankOutcome
from saver_conformance.reports import VERSION, write_pages
from saver_conformance.reports.environment import RunEnvironment, read_environment
from saver_conformance.reports.readings import readings_as_plain
from saver_conformance.reports.report_folder import (
    CASES_FOLDER,
    SMALLEST_CASE_FILE,
    case_name,
    remove_earlier,
)
from saver_conformance.reports.result import Result, parse
from saver_conformance.reports.shard_records import plain_part
from saver_conformance.spec import SPEC, spec_version
from saver_conformance.verdict.causes import FailureCause
from saver_conformance.verdict.failures import CLAUSES
from saver_conformance.verdict.verdict import CaseRecord, Row, Verdict

REPORT_FILE = "report.json"


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
    # What is waived in one mode is no example of what is not in another.
    for row in sorted(rows, key=lambda row: row.status == "waived"):
        if row.findings and not (row.status == "waived" and row.clause in by_clause):
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


def replay_command(case: Case, saver: str) -> str:
    """A command for any shell that replays ``case``, where the saver can be imported."""
    text = case.to_short_json()
    # Some shells' echo takes a backslash for the beginning of an escape.
    show = "printf '%s\\n'" if "\\" in text else "echo"
    saver = shlex.quote(saver)
    return f"{show} {shlex.quote(text)} | saver-conformance replay - --saver {saver}"


def _address_of(verdict: Verdict) -> str:
    """What a replay calls the saver: a name may be known only where this run was made."""
    return verdict.known_as or verdict.address or verdict.saver


def write_report(verdict: Verdict, folder: Path, environment: RunEnvironment | None = None) -> Path:
    """Write ``report.json``, a file for each case with findings, and the pages into ``folder``.

    Case files of an earlier report in the same folder are removed.

    Args:
        verdict: the verdict.
        folder: the folder.
        environment: where the run was made; None: here.

    Returns:
        The path of the page for people.
    """
    (folder / CASES_FOLDER).mkdir(parents=True, exist_ok=True)
    examples = {cause.example for cause in verdict.failures}
    texts = {
        case: case.to_json() for case in {*(item.case for item in verdict.findings), *examples}
    }
    files = {case_name(case.mode.name, text): text for case, text in texts.items()}
    if verdict.smallest is not None:
        files[SMALLEST_CASE_FILE] = verdict.smallest.to_json()
    remove_earlier(folder, folder / REPORT_FILE, files)
    for name, text in files.items():
        (folder / name).write_text(f"{text}\n")
    plain = to_plain(verdict, environment)
    (folder / REPORT_FILE).write_text(json.dumps(plain, indent=2) + "\n")
    return write_pages(plain, folder)


def to_result(verdict: Verdict) -> Result:
    """What the terminal, pytest and the pages show of ``verdict``."""
    return parse(to_plain(verdict))


def to_plain(verdict: Verdict, environment: RunEnvironment | None = None) -> dict[str, Any]:
    """The content of ``report.json``; ``environment`` is where the run was made, or else here."""
    seeds = [record.case.seed for record in verdict.records]
    return {
        "version": VERSION,
        "saver": verdict.known_as or verdict.saver,
        "spec_version": spec_version(),
        "profile": verdict.profile,
        "case_set": verdict.case_set or None,
        "shard": plain_part(verdict),
        "modes": [mode.name for mode in verdict.modes],
        "exit_code": verdict.exit_code,
        "totals": {
            "executed": verdict.executed,
            "expected": verdict.expected,
            "findings": len(verdict.findings),
            "seconds": round(verdict.seconds, 1),
        },
        "environment": asdict(environment or read_environment(verdict.address or verdict.saver)),
        "seeds": {"smallest": min(seeds), "largest": max(seeds)} if seeds else None,
        "pairs": asdict(verdict.pairs) if verdict.pairs else None,
        "cases_a_minute": {pace.engine: round(pace.per_minute, 1) for pace in verdict.paces},
        "seconds_by_step": {
            pace.engine: {step: round(seconds, 1) for step, seconds in pace.steps.items()}
            for pace in verdict.paces
        },
        "spec": {clause: _plain_clause(clause) for clause in verdict.levels},
        "clauses": [_plain_row(row, verdict) for row in verdict.rows],
        "failures": [_plain_failure(cause, verdict) for cause in verdict.failures],
        "unchanged": _plain_unchanged(verdict),
        "interrupted": verdict.interrupted,
        "causes": [_plain_cause(cause, verdict) for cause in group_by_cause(verdict.rows)],
        "waiver_faults": list(verdict.waiver_faults),
        "not_run": [
            _plain_record(item, verdict) for item in verdict.records if item.status != "run"
        ],
        "readings": readings_as_plain(verdict.records),
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


def _plain_row(row: Row, verdict: Verdict) -> dict[str, Any]:
    return {
        "clause": row.clause,
        "level": verdict.levels[row.clause],
        "mode": row.mode.name,
        "status": row.status,
        "cases": row.cases,
        "planned": row.planned,
        "empty_folder": {
            "cases": row.empty_cases,
            "planned": row.empty_planned,
            "findings": sum(item.case.saves_into_empty_folder for item in row.findings),
        },
        "reason": row.reason,
        "findings": [
            _plain_finding(item, _address_of(verdict))
            for item in sorted(row.findings, key=lambda item: complexity(item.case))
        ],
    }


def _plain_failure(cause: FailureCause, verdict: Verdict) -> dict[str, Any]:
    cases = set(cause.failed)
    found = [item for item in verdict.findings if item.case in cases and item.ended is not None]
    # A rank that waits for one that raised or died is no example of what went wrong.
    first = CLAUSES["raised" if cause.exception and cause.kind == "hung" else cause.kind]
    told = [item for item in found if item.clause == first] or found
    example = min(told, key=lambda item: complexity(item.case), default=None)
    messages = Counter(item.ended for item in told)
    return {
        "kind": cause.kind,
        "exception": cause.exception,
        "place": cause.place or (example.place if example else None) or "",
        "message": cause.message,
        "messages": [message for message, _ in messages.most_common()],
        "ends": sorted({_end_of(item) for item in found}),
        "cases": cause.cases,
        "modes": [mode.name for mode in cause.modes],
        "values": {axis: list(values) for axis, values in cause.values.items()},
        "explained": cause.explained,
        "clauses": list(cause.clauses),
        "text": cause.text,
        "when": cause.when,
        "case": json.loads(cause.example.to_json()),
        "replay": replay_command(cause.example, _address_of(verdict)),
        "example": _plain_finding(example, _address_of(verdict)) if example else None,
    }


def _end_of(finding: Finding) -> str:
    """How the rank of ``finding`` ended, as the reason of checks that were not made has it."""
    kind = next(kind for kind, clause in CLAUSES.items() if clause == finding.clause)
    return str(RankOutcome(finding.rank or 0, kind, finding.ended or ""))


def _plain_unchanged(verdict: Verdict) -> dict[str, Any] | None:
    """The cases that fail, and in which the save changed no file; None when there is none."""
    failing = {item.case for row in verdict.rows if row.status == "fail" for item in row.findings}
    cases = [item.case for item in verdict.records if item.unchanged and item.case in failing]
    if not cases:
        return None
    example = min(cases, key=complexity)
    return {
        "cases": len(cases),
        "modes": list(dict.fromkeys(case.mode.name for case in cases)),
        "case": json.loads(example.to_json()),
        "replay": replay_command(example, _address_of(verdict)),
    }


def _plain_cause(cause: Cause, verdict: Verdict) -> dict[str, Any]:
    return {
        "clause": cause.clause,
        "modes": [mode.name for mode in cause.modes],
        "cases": cause.cases,
        "findings": cause.findings,
        "example": _plain_finding(cause.example, _address_of(verdict)),
    }


def _plain_finding(finding: Finding, saver: str) -> dict[str, Any]:
    plain = {
        item.name: getattr(finding, item.name)
        for item in fields(finding)
        if item.name not in ("case", "clause")
    }
    return {
        **plain,
        "case": json.loads(finding.case.to_json()),
        "replay": replay_command(finding.case, saver),
    }


def _plain_record(record: CaseRecord, verdict: Verdict) -> dict[str, Any]:
    return {
        "case": json.loads(record.case.to_json()),
        "status": record.status,
        "reason": record.reason,
        "replay": replay_command(record.case, _address_of(verdict)),
    }
