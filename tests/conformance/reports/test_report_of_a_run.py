"""A real run's report has what the pages need."""

from __future__ import annotations

import re
from pathlib import Path

from saver_conformance.cases.case import Mode
from saver_conformance.execution.workload import Workload
from saver_conformance.reports.result import read_result
from saver_conformance.run import run_conformance

FAKE = "tests.helpers.fake_workload"


def test_a_run_s_report_keeps_to_the_schema(tmp_path: Path) -> None:
    workload = Workload(prepare=FAKE, expectation=FAKE, reload=FAKE, process_group=False)
    modes = (Mode("full", "single"),)
    saver = "tests.helpers.fake_savers:save"
    verdict = run_conformance(
        saver, modes=modes, profile="smoke", workload=workload, report=tmp_path
    )
    assert verdict.executed >= 2
    result = read_result(tmp_path / "report.json")
    assert (result.saver, result.exit_code) == (saver, 1)
    assert re.fullmatch(r"0 to \d+", result.seeds)
    assert re.fullmatch(r"\d+ of \d+", result.pairs)
    assert {"python", "canonical-saver", "torch", "transformers"} <= set(result.versions)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"report.json", "index.html", "junit.xml", "summary.md", "badge.json"} <= names
