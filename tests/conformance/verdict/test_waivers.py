"""Waivers: said in every report, and a failure when nothing needs them."""

import io
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console
from tests.conformance.test_pytest_plugin import WORKLOAD

from saver_conformance import cli, run
from saver_conformance.cases.case import MODES, Case, Mode
from saver_conformance.errors import WaiverFileError
from saver_conformance.execution.explore import Exploration
from saver_conformance.observation.finding import Finding
from saver_conformance.reports.report_json import write_report
from saver_conformance.reports.terminal import print_verdict
from saver_conformance.verdict.verdict import CaseRecord, Verdict, aggregate
from saver_conformance.verdict.waivers import Waiver, apply, read_waivers

SINGLE = Mode("full", "single")
LEVELS = {"FILES-001": "MUST", "FILES-010": "SHOULD"}
FINDING = Finding(expected="a", found="b", clause="FILES-001", case=Case(SINGLE))
WAIVER = Waiver("FILES-001", "full-single", "[known]", "https://example.org/1")


def conclude(*waivers, broken="FILES-001", status="run", every=True):
    findings = (replace(FINDING, clause=broken),)
    ran = {clause: findings if clause == broken else () for clause in LEVELS}
    record = CaseRecord(Case(SINGLE), tuple(LEVELS), status, ran=ran if status == "run" else {})
    rows = aggregate([record], (SINGLE,), LEVELS, dict.fromkeys(LEVELS, MODES))
    rows, faults = apply(rows, waivers, (SINGLE,), every=every)
    return Verdict("pkg:save", "smoke", (SINGLE,), rows, (record,), LEVELS, waiver_faults=faults)


def test_a_waived_must_is_no_failure_and_is_said(tmp_path):
    assert conclude().exit_code == 1
    verdict = conclude(WAIVER)
    assert (verdict.exit_code, verdict.count("waived")) == (0, 1)
    text = io.StringIO()
    print_verdict(Console(file=text, width=200), verdict)
    shown = text.getvalue()
    assert "FILES-001 in full-single is waived: [known] (https://example.org/1)" in shown
    assert shown.rstrip().endswith("; 1 clause waived")
    write_report(verdict, tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    [row] = [row for row in report["clauses"] if row["status"] == "waived"]
    assert row["reason"] == "[known] (https://example.org/1)"
    assert len(row["findings"]) == 1


def test_a_waived_deviation_is_said():
    verdict = conclude(replace(WAIVER, clause="FILES-010"), broken="FILES-010")
    assert (verdict.exit_code, verdict.count("waived"), verdict.count("deviation")) == (0, 1, 0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"clause": "FILES-010"}, "holds, remove the waiver"),
        ({"clause": "FILES-999"}, "no clause is called FILES-999"),
        ({"mode": "full-everything"}, "no mode is called full-everything"),
        ({"clause": "FILES-002"}, "no case demands"),
    ],
)
def test_a_waiver_that_nothing_needs_is_a_failure(changes, words):
    verdict = conclude(WAIVER, replace(WAIVER, **changes))
    assert verdict.exit_code == 1
    [fault] = verdict.waiver_faults
    assert words in fault
    text = io.StringIO()
    print_verdict(Console(file=text, width=200), verdict)
    assert words in text.getvalue()


def test_a_mode_that_is_not_claimed_needs_no_waiver():
    assert conclude(WAIVER, replace(WAIVER, mode="full-ddp")).waiver_faults == ()


def test_a_few_cases_do_not_tell_that_a_waiver_is_not_needed():
    spare = replace(WAIVER, clause="FILES-010")
    assert conclude(WAIVER, spare, every=False).exit_code == 0
    assert conclude(WAIVER, replace(WAIVER, mode="nowhere"), every=False).exit_code == 1


def test_exploring_goes_past_what_is_waived():
    def judge(case):
        return CaseRecord(
            case, ("FILES-001",), "run", ran={"FILES-001": (replace(FINDING, case=case),)}
        )

    for waived, found in (
        ([("FILES-001", "full-single")], None),
        ([], Case(SINGLE, tokenizer="plain")),
    ):
        exploration = Exploration(judge, (SINGLE,), waived)
        exploration.run(0.2)
        assert exploration.smallest == found


def test_replay_honours_waivers(tmp_path, monkeypatch, capsys):
    saver, case = "tests.helpers.fake_savers:does_nothing", tmp_path / "case.json"
    case.write_text(Case(SINGLE).to_json())
    monkeypatch.chdir(Path(__file__).parents[3])
    fake = partial(run.replay, workload=WORKLOAD)
    monkeypatch.setattr(cli, "replay", fake)
    broken = {row.clause for row in fake(Case(SINGLE), saver).rows if row.status == "fail"}
    waivers = tmp_path / "waivers.toml"
    entry = 'reason = "known"\nlink = "https://example.org/1"\n'
    waivers.write_text("".join(f"[{clause}.full-single]\n{entry}" for clause in sorted(broken)))
    codes = []
    for options in ([], ["--waivers", str(waivers)]):
        with pytest.raises(SystemExit) as end:
            cli.main(["replay", str(case), "--saver", saver, *options])
        codes.append(end.value.code)
    assert codes[0] == 1
    assert codes[1] != 1
    assert f"{len(broken)} waived" in capsys.readouterr().out


def test_what_did_not_run_cannot_be_waived():
    verdict = conclude(WAIVER, status="unavailable")
    assert (verdict.exit_code, verdict.count("waived"), verdict.waiver_faults) == (2, 0, ())


def test_reading(tmp_path):
    path = tmp_path / "waivers.toml"
    path.write_text('[FILES-001.full-single]\nreason = "[known]"\nlink = "https://example.org/1"\n')
    assert read_waivers(path) == (WAIVER,)


@pytest.mark.parametrize(
    "text",
    [
        "[",
        'FILES-001 = "all"',
        "[FILES-001]\nfull-single = 1",
        '[FILES-001.full-single]\nreason = "no link"',
        '[FILES-001.full-single]\nreason = " "\nlink = "https://example.org"',
        '[FILES-001.full-single]\nreason = "a"\nlink = 1',
        '[FILES-001.full-single]\nreason = "a"\nlink = "b"\nmore = "c"',
        "\udcff",
    ],
)
def test_a_wrong_file_is_a_wrong_call(tmp_path, text, capsys):
    path = tmp_path / "waivers.toml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(WaiverFileError, match=r"waivers\.toml"):
        read_waivers(path)
    with pytest.raises(SystemExit) as end:
        cli.main(["run", "--waivers", str(path)])
    assert end.value.code == 3
    assert "Traceback" not in capsys.readouterr().err
