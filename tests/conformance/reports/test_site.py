"""Reports from anywhere on one page: what ran nothing is withheld, versions stand together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.helpers.verdicts import CLAIMED, make_record, make_verdict

from saver_conformance import cli
from saver_conformance.reports import html
from saver_conformance.reports.report_json import to_result, write_report
from saver_conformance.reports.result import Result
from saver_conformance.reports.site import collect, why_withheld
from saver_conformance.reports.view import savers_over_time, view_subjects

SINGLE, ZERO3, LORA = CLAIMED


def call(*arguments: object) -> object:
    with pytest.raises(SystemExit) as end:
        cli.main(["site", *map(str, arguments)])
    return end.value.code


def run_of(time: str, peft: str, broken: tuple[str, ...] = ()) -> Result:
    result = to_result(make_verdict("pkg:save", [make_record(SINGLE, broken=broken)]))
    return replace(result, time=f"{time}T00:00:00Z", versions={"peft": peft})


@pytest.mark.slow
def test_collect_finds_reports_at_any_depth(tmp_path: Path) -> None:
    write_report(make_verdict("a:save"), tmp_path / "x" / "y" / "z")
    write_report(make_verdict("b:save"), tmp_path / "w")
    found = collect([tmp_path])
    assert {result.saver for result in found.results} == {"a:save", "b:save"}
    assert found.withheld == ()


@pytest.mark.slow
def test_collect_what_ran_nothing_is_withheld_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_report(make_verdict("good:save"), tmp_path / "good")
    records = [make_record(mode, status="unavailable") for mode in CLAIMED]
    write_report(make_verdict("idle:save", records), tmp_path / "idle")
    found = collect([tmp_path])
    assert [result.saver for result in found.results] == ["good:save"]
    [line] = found.withheld
    assert line.startswith("idle:save")
    assert call(tmp_path, "--out", tmp_path / "site") == 0
    assert "withheld: idle:save" in capsys.readouterr().err
    assert "idle:save" not in (tmp_path / "site" / "index.html").read_text()
    assert call(tmp_path / "idle", "--text") == 3


def test_why_withheld_a_shard_is_no_whole_run() -> None:
    result = to_result(make_verdict("a:save"))
    assert why_withheld(result) == ""
    assert "merge" in why_withheld(replace(result, shard="2/3"))


def test_savers_over_time_newest_first_with_what_changed() -> None:
    runs = [
        run_of("2026-01-01", "0.20"),
        run_of("2026-03-01", "0.22"),
        run_of("2026-02-01", "0.21", broken=("TENSOR-001",)),
    ]
    other = to_result(make_verdict("other:save"))
    matrix = savers_over_time(view_subjects([*runs, other]))
    assert matrix is not None
    assert [line.note for line in matrix.lines] == [
        "2026-03-01, conforms; 1 fixed",
        "2026-02-01, does not conform; 1 broke",
        "2026-01-01, conforms",
    ]
    assert "Savers over versions" in html.render_site([*runs, other])


def test_savers_over_time_one_report_each_has_no_table() -> None:
    subjects = view_subjects([run_of("2026-01-01", "0.20")])
    assert savers_over_time(subjects) is None
    assert "Savers over versions" not in html.render_site([run_of("2026-01-01", "0.20")])
