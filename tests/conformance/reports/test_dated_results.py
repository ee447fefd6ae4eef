"""The reports in ``results/``: readable, small, of whole runs that ran something, free of paths."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fixtures.add_result import add
from tests.helpers.verdicts import CLAIMED, make_record, make_verdict

from saver_conformance.reports.report_json import write_report
from saver_conformance.reports.result import read_report, read_result
from saver_conformance.reports.site import why_withheld

RESULTS = Path(__file__).parents[3] / "results"
REPORTS = sorted(RESULTS.rglob("report.json"))
MOST_BYTES = 900_000


def test_results_lie_in_folders_of_days() -> None:
    assert REPORTS
    days = {path.relative_to(RESULTS).parts[0] for path in REPORTS}
    assert all(re.fullmatch(r"\d{4}-\d{2}-\d{2}", day) for day in days)
    others = {p.name for p in RESULTS.rglob("*") if p.is_file() and p not in REPORTS}
    assert others == {"README.md"}


@pytest.mark.slow
def test_add_keeps_what_the_report_says(tmp_path: Path) -> None:
    record = make_record(CLAIMED[0], broken=("FILES-005",))
    write_report(make_verdict("pkg.mod:save", [record]), tmp_path / "report")
    source = tmp_path / "report" / "report.json"
    target = add(source, tmp_path / "results")
    assert read_result(target) == read_result(source)
    assert target.stat().st_size < source.stat().st_size
    rows = read_report(target)["clauses"]
    listed = {(len(row["findings"]), row.get("findings_left_out")) for row in rows}
    assert listed == {(0, None), (1, 1)}
    idle = [make_record(mode, status="unavailable") for mode in CLAIMED]
    write_report(make_verdict("idle:save", idle), tmp_path / "idle")
    with pytest.raises(ValueError, match="ran no case"):
        add(tmp_path / "idle" / "report.json", tmp_path / "results")


@pytest.mark.parametrize("path", REPORTS, ids=lambda path: "-".join(path.parts[-3:-1]))
def test_report_keeps_to_the_policy(path: Path) -> None:
    result = read_result(path)
    assert why_withheld(result) == ""
    assert result.time.startswith(path.parts[-3])
    assert read_report(path)["spec_version"]
    assert path.stat().st_size <= MOST_BYTES
    assert not re.search(r"/(home|root|tmp|work)/", path.read_text())
