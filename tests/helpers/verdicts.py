"""Verdicts made up for the tests of reports and pages: everything that can come out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from saver_conformance import checks
from saver_conformance.cases.case import MODES, Case, Mode
from saver_conformance.cases.strategies import make_case
from saver_conformance.observation.finding import Defect, Finding
from saver_conformance.reports.report_json import write_report
from saver_conformance.spec import SPEC, clauses_for
from saver_conformance.verdict.verdict import CaseRecord, Pace, Row, Verdict, aggregate
from saver_conformance.verdict.waivers import Waiver, apply

CHECKED = tuple(check.clause for check in checks.checks())
NOT_PLANNED = ("CRASH", "KEEP", "PORTABLE")
"""Areas that the made-up profile plans no case for."""
CLAIMED = tuple(Mode.parse(name) for name in ("full-single", "full-zero3", "lora-ddp"))
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)></style>`|\x1b[2J\x00\ud800\u202e"
"""A name that wants to be markup in HTML, Markdown, XML and on a terminal."""


def make_finding(clause: str, case: Case, text: str = "model.safetensors") -> Finding:
    defect = Defect(f"expected {text}", f"found {text}", file=text, tensor=text, rank=1, offset=8)
    return defect.finding(clause, case)


def make_record(
    mode: Mode,
    broken: Sequence[str] = (),
    unchecked: Sequence[str] = (),
    status: str = "run",
    text: str = "model.safetensors",
) -> CaseRecord:
    case = make_case(mode, {}, seed=3)
    clauses = tuple(
        clause.id
        for clause in clauses_for(mode)
        if clause.id in CHECKED and clause.area not in NOT_PLANNED
    )
    if status != "run":
        return CaseRecord(case, clauses, status, f"because of {text}")  # type: ignore[arg-type]
    ran = {
        clause: (make_finding(clause, case, text),) * 2 if clause in broken else ()
        for clause in clauses
        if clause not in unchecked
    }
    blocked = {clause: f"damaged {text}" for clause in unchecked}
    return CaseRecord(case, clauses, "run", ran=ran, blocked=blocked, seconds=1.0)


def make_verdict(
    saver: str,
    records: Sequence[CaseRecord] = (),
    modes: Sequence[Mode] = CLAIMED,
    waivers: Sequence[Waiver] = (),
) -> Verdict:
    """A verdict of ``records``, and of cases in which all is well in the other ``modes``."""
    told = {record.case.mode for record in records}
    all_records = (*records, *(make_record(mode) for mode in modes if mode not in told))
    levels = {clause: SPEC[clause].level for clause in CHECKED}
    applies: Mapping[str, Sequence[Mode]] = {
        clause: [mode for mode in MODES if mode.matches(SPEC[clause].modes)] for clause in CHECKED
    }
    rows, faults = apply(aggregate(all_records, modes, levels, applies), waivers, modes)
    return Verdict(
        *(saver, "smoke", tuple(modes), rows, all_records, levels, 61.0, (Pace("ddp", 5, 3),)),
        waiver_faults=faults,
    )


def leave_out(area: str, verdict: Verdict) -> Verdict:
    """``verdict`` of a saver that claims no part in ``area``."""
    rows = tuple(
        Row(row.clause, row.mode, "not claimed") if row.area == area else row
        for row in verdict.rows
    )
    return replace(verdict, rows=rows)


def made_verdicts() -> dict[str, Verdict]:
    """One verdict for everything that can come out, by what came out."""
    single, zero3, lora = CLAIMED
    crossing = Waiver("FILES-010", "full-single", "known", "https://example.org/1")
    return {
        "conforms": make_verdict("good.saving:save"),
        "broken": make_verdict(
            "framework.trainer:save_model",
            [
                make_record(single, broken=("FILES-005", "FILES-010")),
                make_record(zero3, broken=("RELOAD-001",), unchecked=("TENSOR-001", "RELOAD-004")),
            ],
        ),
        "slightly broken": make_verdict(
            "other.saving:save", [make_record(lora, broken=("ADAPTER-001",))]
        ),
        "waived": make_verdict(
            "waived.saving:save", [make_record(single, broken=("FILES-010",))], waivers=[crossing]
        ),
        "wrong waiver": make_verdict("careless.saving:save", waivers=[crossing]),
        "inconclusive": make_verdict(
            "rare.saving:save", [make_record(zero3, status="unavailable", text="no library")]
        ),
        "harness": make_verdict("unlucky.saving:save", [make_record(zero3, status="error")]),
        "partial": leave_out("META", make_verdict("weights.only:save")),
        "nothing": make_verdict("idle.saving:save", modes=()),
        "evil": make_verdict(
            EVIL,
            [
                make_record(single, broken=("FILES-005", "FILES-010"), text=EVIL),
                make_record(zero3, status="unavailable", text=EVIL),
                make_record(lora, unchecked=("TENSOR-001",), text=EVIL),
            ],
            waivers=[Waiver("FILES-010", "full-single", EVIL, EVIL), Waiver(EVIL, EVIL, EVIL, "")],
        ),
    }


def write_reports(folder: Path) -> dict[str, Path]:
    """The folders of the reports of all made-up verdicts, by what came out."""
    folders = {}
    for name, verdict in made_verdicts().items():
        folders[name] = folder / name.replace(" ", "-")
        write_report(verdict, folders[name])
    return folders


def read_report(folder: Path) -> dict[str, object]:
    plain: dict[str, object] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return plain
