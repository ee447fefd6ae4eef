"""The reports in ``results/``: readable, small, of whole runs that ran something, free of paths."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from saver_conformance.reports.result import read_report, read_result
from saver_conformance.reports.site import why_withheld

RESULTS = Path(__file__).parents[3] / "results"
REPORTS = sorted(RESULTS.rglob("report.json"))
MOST_BYTES = 400_000


def test_results_lie_in_folders_of_days() -> None:
    assert REPORTS
    days = {path.relative_to(RESULTS).parts[0] for path in REPORTS}
    assert all(re.fullmatch(r"\d{4}-\d{2}-\d{2}", day) for day in days)
    others = {p.name for p in RESULTS.rglob("*") if p.is_file() and p not in REPORTS}
    assert others == {"README.md"}


@pytest.mark.parametrize("path", REPORTS, ids=lambda path: "-".join(path.parts[-3:-1]))
def test_report_keeps_to_the_policy(path: Path) -> None:
    result = read_result(path)
    assert why_withheld(result) == ""
    assert result.time.startswith(path.parts[-3])
    assert read_report(path)["spec_version"]
    assert path.stat().st_size <= MOST_BYTES
    assert not re.search(r"/(home|root|tmp|work)/", path.read_text())
