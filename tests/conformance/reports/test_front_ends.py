"""The command line, the pytest plugin and the Python function say the same of real savers."""

from __future__ import annotations

import contextlib
import json

import pytest

from saver_conformance import cli, run
from saver_conformance.cases.case import Mode
from saver_conformance.spec import SPEC

pytest_plugins = ["pytester"]

WORDS = {"pass": "PASSED", "fail": "FAILED", "deviation": "XFAIL"}


@pytest.fixture
def judge_of_all_runs(shared_judge, monkeypatch):
    """Every run takes the judge, and with it the ranks, of the tests of mutants."""

    @contextlib.contextmanager
    def lend(saver, **_):
        shared_judge.turn_to(saver)
        yield shared_judge

    monkeypatch.setattr(run, "CaseRunner", lend)


@pytest.mark.usefixtures("judge_of_all_runs")
@pytest.mark.parametrize(
    ("saver", "code", "broken"),
    [
        ("canonical_saver:save_trained_model", 0, set()),
        ("fixtures.mutants.meta:forgets_generation_config", 1, {"META-006"}),
        ("fixtures.mutants.files:keeps_files_private", 0, {"FILES-010"}),
    ],
)
def test_all_front_ends_say_the_same(saver, code, broken, tmp_path, pytester):
    verdict = run.run_conformance(saver, modes=[Mode("full", "single")], profile="smoke")
    statuses = {row.clause: row.status for row in verdict.rows if row.status != "not claimed"}
    assert verdict.exit_code == code
    assert {clause for clause, status in statuses.items() if status != "pass"} == broken

    chosen = ["--modes", "full-single", "--profile", "smoke", "--report", str(tmp_path)]
    with pytest.raises(SystemExit) as end:
        cli.main(["run", "--saver", saver, *chosen])
    assert end.value.code == code
    clauses = json.loads((tmp_path / "report.json").read_text())["clauses"]
    told = {row["clause"]: row["status"] for row in clauses if row["status"] != "not claimed"}
    assert told == statuses

    options = ("--saver", saver, "--saver-modes", "full-single", "--saver-profile", "smoke")
    plugin = ("-rA", "-p", "no:cacheprovider", "-p", "saver_conformance.pytest_plugin")
    result = pytester.runpytest_inprocess(*plugin, *options)
    assert result.ret == code
    for clause in SPEC:
        shown = {line.split()[0] for line in result.outlines if f"{clause}[full-single]" in line}
        word = WORDS.get(statuses.get(clause, ""))
        assert word in shown if word else not {"PASSED", "FAILED"} & shown, clause
