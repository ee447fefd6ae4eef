"""Verdicts and reports: nothing is green by not having run, and findings help."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from saver_conformance.cases.case import MODES, Adapter, Case, Mode
from saver_conformance.cases.strategies import make_case
from saver_conformance.execution.explore import Exploration
from saver_conformance.observation.finding import Defect
from saver_conformance.reports.report_json import (
    complexity,
    group_by_cause,
    replay_command,
    write_report,
)
from saver_conformance.reports.terminal import print_verdict
from saver_conformance.spec import SPEC
from saver_conformance.verdict.verdict import CaseRecord, Pace, Verdict, aggregate

SINGLE, DDP, LORA = Mode("full", "single"), Mode("full", "ddp"), Mode("lora", "ddp")
CASE = Case(SINGLE)
FINDING = Defect("this file", "[another] file", file="model.safetensors", rank=1, offset=8).finding(
    "FILES-001", CASE
)
LEVELS = {"FILES-001": "MUST", "FILES-010": "SHOULD"}
APPLIES = {"FILES-001": MODES, "FILES-010": MODES}


def record(case: Case = CASE, **values: object) -> CaseRecord:
    clauses = tuple(LEVELS)
    if "status" in values:
        return CaseRecord(case, clauses, reason="because", **values)  # type: ignore[arg-type]
    ran = {clause: values.get(clause.replace("-", "_"), ()) for clause in clauses}
    blocked = {clause: "damaged" for clause, findings in ran.items() if findings is None}
    return CaseRecord(
        case,
        clauses,
        "run",
        ran={clause: findings for clause, findings in ran.items() if findings is not None},  # type: ignore[misc]
        blocked=blocked,
    )


def conclude(*records: CaseRecord, modes: tuple[Mode, ...] = (SINGLE,)) -> Verdict:
    rows = aggregate(records, modes, LEVELS, APPLIES)
    return Verdict(
        "pkg.mod:save", "smoke", modes, rows, records, LEVELS, 61.0, (Pace("ddp", 5, 3),)
    )


def status(verdict: Verdict, clause: str = "FILES-001", mode: Mode = SINGLE) -> str:
    [row] = [row for row in verdict.rows if (row.clause, row.mode) == (clause, mode)]
    return row.status


def test_everything_checked_and_held() -> None:
    verdict = conclude(record(), record(replace(CASE, seed=1)))
    assert verdict.exit_code == 0
    assert status(verdict) == "pass"
    assert (verdict.executed, verdict.expected) == (2, 2)


def test_a_broken_must() -> None:
    verdict = conclude(record(FILES_001=(FINDING,)), record(replace(CASE, seed=1)))
    assert (verdict.exit_code, status(verdict)) == (1, "fail")


def test_a_broken_should_is_a_deviation() -> None:
    verdict = conclude(record(FILES_010=(replace(FINDING, clause="FILES-010"),)))
    assert (verdict.exit_code, status(verdict, "FILES-010")) == (0, "deviation")


def test_nothing_ran() -> None:
    assert conclude().exit_code == 2
    assert conclude(modes=()).exit_code == 2


def test_one_claimed_mode_did_not_run() -> None:
    assert conclude(record(), modes=(SINGLE, DDP)).exit_code == 2


@pytest.mark.parametrize(("how", "code"), [("unavailable", 2), ("skipped", 2), ("error", 3)])
def test_a_case_that_did_not_run(how: str, code: int) -> None:
    verdict = conclude(record(), record(replace(CASE, seed=1), status=how))
    assert verdict.exit_code == code
    assert status(verdict) == ("error" if how == "error" else "unavailable")
    assert (verdict.executed, verdict.expected) == (1, 2)


def test_a_failure_counts_more_than_what_did_not_run() -> None:
    verdict = conclude(record(FILES_001=(FINDING,)), record(replace(CASE, seed=1), status="error"))
    assert verdict.exit_code == 1


def test_a_check_that_was_prevented_is_no_pass() -> None:
    verdict = conclude(record(FILES_001=None))
    assert (verdict.exit_code, status(verdict)) == (2, "unavailable")
    assert "damaged" in verdict.rows[0].reason


def test_other_modes_are_not_claimed() -> None:
    assert status(conclude(record()), mode=DDP) == "not claimed"


def test_simple_cases_come_first() -> None:
    plain = Case(LORA, adapter=Adapter(), world_size=2)
    odd = replace(plain, sizes="odd")
    richer = replace(plain, adapter=Adapter(r=7, alpha=14, dora=True))
    assert sorted([richer, odd, plain], key=complexity) == [plain, odd, richer]


def test_findings_are_grouped_by_cause() -> None:
    odd = replace(CASE, sizes="odd")
    verdict = conclude(
        record(odd, FILES_001=(replace(FINDING, case=odd),) * 5), record(FILES_001=(FINDING,))
    )
    [cause] = group_by_cause(verdict.rows)
    assert (cause.example, cause.cases, cause.findings) == (FINDING, 2, 6)


def test_the_report_says_all_that_is_demanded(tmp_path: Path) -> None:
    unavailable = record(Case(DDP, world_size=2), status="unavailable")
    write_report(conclude(record(FILES_001=(FINDING,)), unavailable, modes=(SINGLE, DDP)), tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["totals"]["executed"] == 1
    assert report["totals"]["expected"] == 2
    assert report["exit_code"] == 1
    assert report["cases_a_minute"] == {"ddp": 100.0}
    assert report["not_run"][0]["reason"] == "because"
    [row] = [row for row in report["clauses"] if row["status"] == "fail"]
    assert (row["clause"], row["mode"], row["cases"]) == ("FILES-001", "full-single", 1)
    [finding] = row["findings"]
    assert (finding["rank"], finding["file"], finding["offset"]) == (1, "model.safetensors", 8)
    [file] = (tmp_path / "cases").iterdir()
    assert Case.from_json(file.read_text()) == CASE
    assert finding["replay"] == replay_command(CASE, "pkg.mod:save")


def test_the_terminal_shows_the_table_and_one_finding_a_cause() -> None:
    text = io.StringIO()
    verdict = conclude(record(FILES_001=(FINDING,) * 300))
    print_verdict(Console(file=text, width=200), verdict, verbose=True)
    shown = text.getvalue()
    for part in ("full-single", "FAIL", "1/1", "ddp 100", "found:    [another] file", "rank 1"):
        assert part in shown
    assert "300 findings in 1 case" in shown
    assert "1 of 1 case in 61 s" in shown
    assert "does not conform" in shown
    assert len(shown.splitlines()) < 30


def test_the_terminal_names_what_no_case_tries() -> None:
    levels = LEVELS | {"CRASH-001": "MUST", "ADAPTER-001": "MUST"}
    verdict = replace(conclude(record()), levels=levels)
    text = io.StringIO()
    print_verdict(Console(file=text, width=200), verdict)
    # ADAPTER-001 is about other modes than the one that is claimed.
    assert "not tried in profile smoke: 1 MUST (CRASH-001)" in text.getvalue()


def test_exploring_shrinks_to_the_guilty_axes() -> None:
    def judge(case: Case) -> CaseRecord:
        guilty = case.architecture == "mixtral" and case.sizes == "odd"
        return CaseRecord(case, (), "run", ran={"FILES-001": (FINDING,) if guilty else ()})

    exploration = Exploration(judge, (DDP, LORA))
    exploration.run(None)
    assert exploration.smallest == Case(DDP, "mixtral", "odd", tokenizer="plain", world_size=2)


@pytest.mark.parametrize(
    "guilt",
    [
        {"world_size": 3},
        {"world_size": 4, "nodes": 2},
        {"probe": "control_run"},
        {"foreign_files": "readonly"},
        {"tie": "contrary", "architecture": "llama-tied"},
    ],
    ids=str,
)
def test_exploring_leaves_everything_else_at_its_simplest(guilt) -> None:
    def judge(case: Case) -> CaseRecord:
        guilty = all(getattr(case, name) == value for name, value in guilt.items())
        return CaseRecord(case, (), "run", ran={"FILES-001": (FINDING,) if guilty else ()})

    exploration = Exploration(judge, (DDP, Mode("full", "fsdp2")))
    exploration.run(None)
    assert exploration.smallest == make_case(DDP, guilt)


def test_exploring_keeps_the_saves_before_that_matter() -> None:
    def judge(case: Case) -> CaseRecord:
        guilty = case.after is not None and case.after.mode.is_adapter
        return CaseRecord(case, (), "run", ran={"FILES-001": (FINDING,) if guilty else ()})

    exploration = Exploration(judge, (DDP,))
    exploration.run(None)
    lora = make_case(Mode("lora", "ddp"), {})
    assert exploration.smallest == make_case(DDP, {"after": lora})


def test_exploring_ends_with_its_time() -> None:
    exploration = Exploration(lambda case: CaseRecord(case, (), "run"), MODES)
    exploration.run(0.3)
    assert exploration.smallest is None
    assert {case.mode for case in exploration.records} == set(MODES)


@pytest.mark.slow
def test_a_saver_that_breaks_everything_gets_one_page() -> None:
    clauses = [clause for clause in SPEC if SPEC[clause].level == "MUST"]
    long = replace(FINDING, found="\x1b[2J line\n" * 100, file="a\x07b.json")
    ran = {clause: (replace(long, clause=clause),) * 50 for clause in clauses}
    records = (CaseRecord(CASE, tuple(ran), "run", ran=ran),)
    rows = aggregate(records, (SINGLE,), dict.fromkeys(ran, "MUST"), dict.fromkeys(ran, MODES))
    text = io.StringIO()
    verdict = Verdict("pkg:save", "smoke", (SINGLE,), rows, records, dict.fromkeys(ran, "MUST"))
    print_verdict(Console(file=text, width=120), verdict)
    shown = text.getvalue()
    assert len(shown.splitlines()) < 150
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "also broken" in shown
    assert clauses[-1] in shown
