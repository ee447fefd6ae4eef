"""``saver-conformance demo``: a broken saver is found, and the texts lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from saver_conformance.cli import main
from saver_conformance.getting_started import demo
from saver_conformance.reports.result import read_result
from saver_conformance.spec import SPEC

ROOT = Path(__file__).parents[3]


def test_demo_finds_the_defect_and_says_what_to_look_at(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["demo", "--report", str(tmp_path / "report")])
    assert ended.value.code == 0
    printed = capfd.readouterr().out
    assert printed.startswith(demo.INTRODUCTION.splitlines()[0][:40])
    assert printed.rstrip().endswith(demo.NEXT.rstrip())
    result = read_result(tmp_path / "report" / "report.json")
    broken = {cause.clause for cause in result.causes}
    assert {demo.DEFECT, demo.LOST} <= broken
    # One defect: what is broken is the file that stays, and what a loader makes of it.
    assert broken <= {demo.DEFECT, "RELOAD-004", "RELOAD-006"}


def test_next_steps_name_what_exists() -> None:
    assert {demo.DEFECT, demo.LOST} <= set(SPEC)
    pages = re.findall(r"docs/\S+\.md", demo.NEXT)
    assert pages
    assert all((ROOT / page).is_file() for page in pages)
