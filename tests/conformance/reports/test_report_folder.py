"""A report's folder: tried before the run, and never cleared of what is not the suite's."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from tests.helpers.verdicts import make_record, make_verdict

from saver_conformance import cli
from saver_conformance.cases.case import Mode
from saver_conformance.errors import ReportFolderError
from saver_conformance.reports.report_folder import prepare
from saver_conformance.reports.report_json import write_report
from saver_conformance.verdict.verdict import Verdict

SINGLE = Mode("full", "single")


def broken(seed: int) -> Verdict:
    record = make_record(SINGLE, broken=("FILES-005",))
    ran = {
        clause: tuple(replace(item, case=replace(item.case, seed=seed)) for item in findings)
        for clause, findings in record.ran.items()
    }
    return make_verdict("pkg:save", [replace(record, ran=ran)])


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_prepare_makes_the_folder_and_leaves_nothing(tmp_path: Path) -> None:
    prepare(tmp_path / "a" / "b")
    prepare(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_prepare_refuses_a_file_and_a_place_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ReportFolderError, match="not a folder"):
        prepare(tmp_path / "file")
    with pytest.raises(ReportFolderError, match="/proc/x"):
        prepare(Path("/proc/x"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_prepare_refuses_a_folder_that_is_read_only(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(ReportFolderError, match="Permission denied"):
        prepare(tmp_path)


@pytest.mark.parametrize("place", ["/proc/x", "file", "file/below"])
def test_run_with_an_impossible_report_ends_before_the_first_case(
    place: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    monkeypatch.setattr(cli, "run_conformance", lambda *_, **__: pytest.fail("it ran"))
    with pytest.raises(SystemExit) as end:
        cli.main(["run", "--report", place])
    assert end.value.code == 3
    assert place in capsys.readouterr().err
    assert Path("file").read_text() == "mine"


def test_second_report_removes_the_cases_of_the_first_alone(tmp_path: Path) -> None:
    write_report(broken(1), tmp_path)
    first = files(tmp_path)
    kept = {"cases/mine.json", "cases/full-single-00000000.json", "notes.txt", "cases/a/b.json"}
    for name in kept:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}\n")
    write_report(broken(2), tmp_path)
    second = files(tmp_path)
    assert kept < second
    [old] = first - second
    [new] = second - first - kept
    assert old.startswith("cases/full-single-")
    assert new.startswith("cases/full-single-")


def test_second_report_keeps_a_case_that_somebody_has_changed(tmp_path: Path) -> None:
    write_report(broken(1), tmp_path)
    [case] = (tmp_path / "cases").iterdir()
    case.write_text("changed by hand")
    write_report(broken(2), tmp_path)
    assert case.read_text() == "changed by hand"


def test_second_report_of_the_same_cases_keeps_them(tmp_path: Path) -> None:
    write_report(broken(1), tmp_path)
    before = files(tmp_path)
    write_report(broken(1), tmp_path)
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"clauses": 1}', '{"clauses": [{"findings": 3}]}']
)
def test_second_report_over_something_else_removes_nothing(text: str, tmp_path: Path) -> None:
    (tmp_path / "cases").mkdir()
    (tmp_path / "cases" / "full-single-12345678.json").write_text("{}\n")
    (tmp_path / "report.json").write_text(text)
    write_report(broken(1), tmp_path)
    assert "cases/full-single-12345678.json" in files(tmp_path)


def test_second_report_follows_no_link_and_no_path(tmp_path: Path) -> None:
    outside = tmp_path / "outside.json"
    folder = tmp_path / "report"
    write_report(broken(1), folder)
    [case] = (folder / "cases").iterdir()
    case.rename(outside)
    case.symlink_to(outside)
    report = json.loads((folder / "report.json").read_text())
    for row in report["clauses"]:
        for finding in row["findings"]:
            finding["case"]["mode"] = "../../outside"
    write_report(broken(2), folder)
    assert outside.is_file()
    assert case.is_symlink()
    (folder / "report.json").write_text(json.dumps(report))
    write_report(broken(3), folder)
    assert outside.is_file()


def test_page_is_named_after_the_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "run_conformance", lambda *_, **__: broken(1))
    with pytest.raises(SystemExit):
        cli.main(["run", "--report", str(tmp_path / "rep")])
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[-1] == f"report: {tmp_path}/rep/index.html"
    assert (tmp_path / "rep" / "index.html").is_file()
    assert "pkg:save does not conform: 1 MUST is broken" in lines[-2]


def test_verdict_is_printed_though_the_report_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> Path:
        raise OSError(28, "No space left on device", str(tmp_path))

    monkeypatch.setattr(cli, "run_conformance", lambda *_, **__: broken(1))
    monkeypatch.setattr(cli, "write_report", fail)
    with pytest.raises(SystemExit) as end:
        cli.main(["run", "--report", str(tmp_path)])
    assert end.value.code == 3
    shown = capsys.readouterr()
    assert "FILES-005 (MUST)" in shown.out
    assert "No space left on device" in shown.err
