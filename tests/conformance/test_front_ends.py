"""The command line, the pytest plugin and the Python function say the same of real savers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from saver_conformance.spec import SPEC

ROOT = Path(__file__).parents[2]
WORDS = {"pass": "PASSED", "fail": "FAILED", "deviation": "XFAIL"}
IN_PYTHON = """
import json, sys
from saver_conformance.case import Mode
from saver_conformance.runner import run_conformance

verdict = run_conformance(sys.argv[1], modes=[Mode("full", "single")], profile="smoke")
statuses = {row.clause: row.status for row in verdict.rows if row.status != "not claimed"}
print(json.dumps([verdict.exit_code, statuses]))
"""


@pytest.mark.parametrize(
    ("saver", "code", "broken"),
    [
        ("canonical_saver:save_trained_model", 0, set()),
        ("fixtures.mutants.meta:forgets_generation_config", 1, {"META-006"}),
        ("fixtures.mutants.files:keeps_files_private", 0, {"FILES-010"}),
    ],
)
def test_all_front_ends_say_the_same(saver: str, code: int, broken: set[str], tmp_path: Path):
    report = tmp_path / "report"
    chosen = ("--modes", "full-single", "--profile", "smoke", "--report", str(report))
    plugin = ("-rA", "-p", "no:cacheprovider", "-p", "saver_conformance.pytest_plugin")
    options = ("--saver-modes", "full-single", "--saver-profile", "smoke", str(tmp_path))
    runs = [
        start("-c", IN_PYTHON, saver),
        start("-m", "saver_conformance.cli", "run", "--saver", saver, *chosen),
        start("-m", "pytest", *plugin, "--rootdir", str(tmp_path), "--saver", saver, *options),
    ]
    in_python, on_command_line, in_pytest = (run.communicate()[0] for run in runs)

    exit_code, statuses = json.loads(in_python.splitlines()[-1])
    assert exit_code == code
    assert {clause for clause, status in statuses.items() if status != "pass"} == broken

    assert runs[1].returncode == code, on_command_line
    clauses = json.loads((report / "report.json").read_text())["clauses"]
    told = {row["clause"]: row["status"] for row in clauses if row["status"] != "not claimed"}
    assert told == statuses

    assert runs[2].returncode == code, in_pytest
    lines = in_pytest.splitlines()
    for clause in SPEC:
        shown = [line.split()[0] for line in lines if f"{clause}[full-single]" in line]
        word = WORDS.get(statuses.get(clause, ""))
        assert word in shown if word else not {"PASSED", "FAILED"} & set(shown), clause


def start(*arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
