"""What became of the cases of a part of a run, as data in its report, and back.

``report.json`` of a part has all that the verdict of the whole is made of. The findings stand in
it already, by clause and mode; they are not repeated here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from typing import Any

from saver_conformance import checks
from saver_conformance.cases.case import Case, Mode
from saver_conformance.cases.shards import Shard
from saver_conformance.observation.finding import Defect, Finding
from saver_conformance.verdict.failures import FailedSave
from saver_conformance.verdict.part import Part
from saver_conformance.verdict.verdict import CaseRecord, Pace, Verdict
from saver_conformance.verdict.waivers import Waiver


def plain_part(verdict: Verdict) -> dict[str, Any] | None:
    """The value of ``shard`` in a report; None for a whole run."""
    part = verdict.part
    if part is None:
        return None
    return {
        "number": part.shard.number,
        "of": part.shard.of,
        "address": verdict.address,
        "modes": [mode.name for mode in part.modes],
        "without": list(part.without),
        "waivers": [asdict(waiver) for waiver in part.waivers],
        "paces": [asdict(pace) for pace in verdict.paces],
        "records": [_plain_record(record) for record in verdict.records],
    }


def parse_part(plain: Mapping[str, Any]) -> Part:
    """The part that ``plain_part`` wrote.

    Raises:
        ValueError: it names a shard or a mode that does not exist.
    """
    return Part(
        Shard(plain["number"], plain["of"]),
        tuple(map(Mode.parse, plain["modes"])),
        tuple(plain["without"]),
        tuple(Waiver(**waiver) for waiver in plain["waivers"]),
    )


def parse_paces(plain: Iterable[Mapping[str, Any]]) -> tuple[Pace, ...]:
    """The speeds that ``plain_part`` wrote."""
    return tuple(Pace(**pace) for pace in plain)


def parse_records(report: Mapping[str, Any]) -> tuple[CaseRecord, ...]:
    """The records of a report of a part.

    Raises:
        ValueError: a case cannot be read by this version of the suite.
    """
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in report["clauses"]:
        for finding in row["findings"]:
            key = row["clause"], Case.from_json(json.dumps(finding["case"])).to_json()
            found.setdefault(key, []).append(finding)
    return tuple(_parse_record(plain, found) for plain in report["shard"]["records"])


def _plain_record(record: CaseRecord) -> dict[str, Any]:
    failure = record.failure
    missing = [clause for clause in record.clauses if clause not in record.ran]
    return {
        "case": json.loads(record.case.to_json()),
        "status": record.status,
        "reason": record.reason,
        "blocked": {clause: record.blocked.get(clause, "no check was made") for clause in missing}
        if record.status == "run"
        else {},
        "seconds": round(record.seconds, 3),
        "failure": {**asdict(failure), "case": json.loads(failure.case.to_json())}
        if failure
        else None,
        "stopped_by": list(record.stopped_by),
        "unchanged": record.unchanged,
    }


def _parse_record(
    plain: Mapping[str, Any], found: Mapping[tuple[str, str], list[Mapping[str, Any]]]
) -> CaseRecord:
    case = Case.from_json(json.dumps(plain["case"]))
    clauses, text = checks.applicable(case), case.to_json()
    blocked = plain["blocked"]
    checked = [name for name in clauses if name not in blocked] if plain["status"] == "run" else []
    return CaseRecord(
        case,
        clauses,
        plain["status"],
        plain["reason"],
        ran={
            clause: tuple(
                _parse_finding(item, clause, case) for item in found.get((clause, text), ())
            )
            for clause in checked
        },
        blocked=blocked,
        seconds=plain["seconds"],
        failure=_parse_failure(plain["failure"]),
        stopped_by=tuple(plain["stopped_by"]),
        unchanged=plain["unchanged"],
    )


def _parse_finding(plain: Mapping[str, Any], clause: str, case: Case) -> Finding:
    own: dict[str, Any] = {item.name: plain.get(item.name) for item in fields(Defect)}
    if own["shape"] is not None:
        own["shape"] = tuple(own["shape"])
    return Defect(**own).finding(clause, case)


def _parse_failure(plain: Mapping[str, Any] | None) -> FailedSave | None:
    if plain is None:
        return None
    case = Case.from_json(json.dumps(plain["case"]))
    return FailedSave(**{**plain, "case": case, "clauses": tuple(plain["clauses"])})
