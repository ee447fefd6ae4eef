"""``saver-conformance demo``: a broken saver is found, and the texts lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from saver_conformance.cli import main, make_parser
from saver_conformance.getting_started import demo
from saver_conformance.reports.result import read_result
from saver_conformance.spec import SPEC


@pytest.mark.slow
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
    broken = set(result.causes)
    assert {demo.DEFECT, demo.LOST} <= broken
    # One defect: what is broken is the file that stays, and what a loader makes of it.
    assert broken <= {demo.DEFECT, "RELOAD-004", "RELOAD-006"}


def test_next_steps_name_what_exists() -> None:
    assert {demo.DEFECT, demo.LOST} <= set(SPEC)
    commands = re.findall(r"^  saver-conformance (.+?)(?:  |$)", demo.NEXT, re.MULTILINE)
    assert len(commands) >= 4
    for command in commands:
        make_parser().parse_args(shlex.split(command))
