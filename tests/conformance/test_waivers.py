"""Waivers: said in every report, and a failure when nothing needs them."""

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from saver_conformance import cli
from saver_conformance.case import MODES, Case, Mode
from saver_conformance.finding import Finding
from saver_conformance.report import write_report
from saver_conformance.terminal import print_verdict
from saver_conformance.verdict import CaseRecord, Verdict, aggregate
from saver_conformance.waivers import Waiver, WaiverFileError, apply, read_waivers

SINGLE = Mode("full", "single")
LEVELS = {"FILES-001": "MUST", "FILES-010": "SHOULD"}
FINDING = Finding("FILES-001", "a", "b", Case(SINGLE))
WAIVER = Waiver("FILES-001", "full-single", "[known]", "https://example.org/1")


def conclude(*waivers, broken="FILES-001", status="run"):
    findings = (replace(FINDING, clause=broken),)
    ran = {clause: findings if clause == broken else () for clause in LEVELS}
    record = CaseRecord(Case(SINGLE), tuple(LEVELS), status, ran=ran if status == "run" else {})
    rows = aggregate([record], (SINGLE,), LEVELS, dict.fromkeys(LEVELS, MODES))
    rows, faults = apply(rows, waivers, (SINGLE,))
    return Verdict("pkg:save", "smoke", (SINGLE,), rows, (record,), LEVELS, waiver_faults=faults)


def test_a_waived_must_is_no_failure_and_is_said(tmp_path):
    assert conclude().exit_code == 1
    verdict = conclude(WAIVER)
    assert (verdict.exit_code, verdict.count("waived")) == (0, 1)
    text = io.StringIO()
    print_verdict(Console(file=text, width=200), verdict)
    shown = text.getvalue()
    assert "FILES-001 in full-single is waived: [known] (https://example.org/1)" in shown
    assert shown.rstrip().endswith("; 1 waived")
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
