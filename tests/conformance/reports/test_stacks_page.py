"""The page of stacks: which libraries, what came out, and why not all was run."""

from __future__ import annotations

from pathlib import Path

import pytest
from fixtures import stacks
from tests.helpers.verdicts import CLAIMED, make_record, make_verdict

from saver_conformance.errors import ResultError
from saver_conformance.reports.report_json import write_report


@pytest.mark.slow
def test_page_has_versions_modes_and_reasons_of_every_stack(tmp_path: Path) -> None:
    single, zero3, ddp = CLAIMED
    good = [make_record(mode) for mode in CLAIMED]
    missing = [make_record(single), make_record(zero3, status="unavailable"), make_record(ddp)]
    for name, records in {"newest": good, "minimums": missing}.items():
        write_report(make_verdict("canonical_saver:save_trained_model", records), tmp_path / name)
    page = stacks.make_page(stacks.read_stacks(tmp_path))
    assert "| full-single | pass | pass |" in page
    [row] = [line for line in page.splitlines() if line.startswith("| full-zero3 |")]
    assert row == "| full-zero3 | unchecked | pass |"
    assert "| mode | minimums | newest |" in page
    assert "    - minimums: full-zero3" in page
    assert "2 of 3" in page


def test_page_without_reports_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultError):
        stacks.read_stacks(tmp_path)


def test_page_that_is_committed_without_results_is_current() -> None:
    committed = stacks.PAGE.read_text()
    assert committed.startswith(stacks.MADE_BY)
    assert "No results" not in committed or committed == stacks.make_page({})
