"""The pytest plugin: a test for each clause and mode, and the verdict of the other front ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from saver_conformance import cli, run
from saver_conformance.cases.case import MODES, Mode
from saver_conformance.checks import checks
from saver_conformance.execution.workload import Workload
from saver_conformance.spec import SPEC
from saver_conformance.verdict.verdict import Verdict

ROOT = Path(__file__).parents[2]
FAKE = "tests.helpers.fake_workload"
WORKLOAD = Workload(prepare=FAKE, expectation=FAKE, reload=FAKE, process_group=False)
SAVER = "tests.helpers.fake_savers:save"
SINGLE = Mode("full", "single")
CONFTEST = f"""
import functools
import sys
sys.path.insert(0, {str(ROOT)!r})
from saver_conformance import pytest_plugin
from saver_conformance.execution.workload import Workload
from tests.conformance.test_pytest_plugin import WORKLOAD
pytest_plugin.run_conformance = functools.partial(pytest_plugin.run_conformance, workload=WORKLOAD)
pytest_plugins = ["saver_conformance.pytest_plugin"]
"""

pytest_plugins = ["pytester"]


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_project="def test_of_the_project(): pass")
    return pytester


def run_python() -> Verdict:
    return run.run_conformance(SAVER, modes=(SINGLE,), profile="smoke", workload=WORKLOAD)


def run_pytest(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    options = ("--saver", SAVER, "--saver-modes", "full-single", "--saver-profile", "smoke")
    return project.runpytest_subprocess("-p", "no:cacheprovider", "-rA", *options, *arguments)


def test_without_a_saver_there_is_no_test(project: pytest.Pytester) -> None:
    result = project.runpytest_subprocess("--strict-markers")
    result.assert_outcomes(passed=1)


def test_there_is_a_test_for_each_clause_and_mode(project: pytest.Pytester) -> None:
    arguments = ("--collect-only", "-q", "--strict-markers", "--saver", SAVER)
    shown = project.runpytest_subprocess(*arguments).stdout.lines
    for check in checks():
        for mode in MODES:
            expected = mode.matches(SPEC[check.clause].modes)
            assert any(f"{check.clause}[{mode}]" in line for line in shown) == expected
    should = project.runpytest_subprocess(*arguments, "-m", "should").stdout.str()
    assert "FILES-010[full-ddp]" in should
    assert "FILES-001[full-ddp]" not in should


def test_all_front_ends_give_the_same_verdict(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    verdict = run_python()
    expected = {row.clause: row.status for row in verdict.rows if row.mode == SINGLE}
    assert len(set(expected.values())) > 1

    monkeypatch.setattr(
        cli, "run_conformance", lambda *a, **k: run.run_conformance(*a, workload=WORKLOAD, **k)
    )
    with pytest.raises(SystemExit) as end:
        cli.main(["run", "--saver", SAVER, "--modes", "full-single", "--profile", "smoke"])
    assert end.value.code == verdict.exit_code == 1

    monkeypatch.chdir(project.path)
    result = run_pytest(project)
    assert result.ret == 1
    words = {"pass": "PASSED", "fail": "FAILED", "deviation": "XFAIL", "unavailable": "FAILED"}
    shown = result.stdout.lines
    for clause, status in expected.items():
        level = verdict.levels[clause]
        word = "SKIPPED" if status == "unavailable" and level != "MUST" else words[status]
        if word != "SKIPPED":  # whose summary names no test
            name = f"{clause}[full-single]"
            assert any(line.startswith(word) and name in line for line in shown), name
    text = result.stdout.str()
    assert "| saver-conformance replay - --saver tests.helpers.fake_savers:save" in text
    assert "runtest" not in text  # no traceback of the suite's own code


def test_selected_tests_claim_their_modes_and_waivers_count(project: pytest.Pytester) -> None:
    waivers = project.path / "waivers.toml"
    entry = 'reason = "known"\nlink = "https://example.org/1"\n'
    waivers.write_text(f"[META-001.full-single]\n{entry}[RANKS-001.full-single]\n{entry}")
    selected = ("-k", "META-001 or RANKS-001 or waivers", "--saver-waivers", str(waivers))
    result = run_pytest(project, *selected)
    result.assert_outcomes(passed=1, xfailed=1, failed=1, deselected=_others())
    result.stdout.fnmatch_lines(["*remove the waiver: RANKS-001 in full-single: known*"])
    result.stdout.fnmatch_lines(["*XFAIL*META-001*waived: known (https://example.org/1)*"])


def _others() -> int:
    """One test for each clause and one of the project, but for META-001 and RANKS-001."""
    return -1 + sum(SINGLE.matches(SPEC[check.clause].modes) for check in checks())


def test_a_saver_that_cannot_be_imported_fails_every_test(project: pytest.Pytester) -> None:
    project.makepyfile(broken_saver="raise KeyError('HOME_OF_MODELS')")
    result = project.runpytest_subprocess(
        "--saver", "broken_saver:save", "--saver-modes", "full-single", "-k", "META-001"
    )
    result.assert_outcomes(failed=1, deselected=_others() + 1)
    result.stdout.fnmatch_lines(["no verdict: *'broken_saver' is not importable: KeyError:*"])
    result.stdout.fnmatch_lines(["*broken_saver.py*, line 1*"])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--saver", SAVER, "--saver-modes", "full-singel"), "no mode is called 'full-singel'"),
        (("--saver", "nope"), "'nope' is no saver"),
        (("--saver", "no_such_module:save"), "there is no module 'no_such_module'"),
        (("--saver", SAVER, "--saver-waivers", "none.toml"), "none.toml cannot be read"),
        (("--saver", SAVER, "--saver-claims", "none.toml"), "none.toml cannot be read"),
    ],
)
def test_a_wrong_option_is_a_usage_error(
    project: pytest.Pytester, options: tuple[str, ...], told: str
) -> None:
    result = project.runpytest_subprocess(*options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert told in result.stderr.str()
    assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()


def test_what_is_collected_is_counted(project: pytest.Pytester) -> None:
    options = ("--collect-only", "--saver", SAVER, "--saver-modes", "full-single")
    number = sum(SINGLE.matches(SPEC[check.clause].modes) for check in checks())
    shown = project.runpytest_subprocess(*options).stdout
    shown.fnmatch_lines([f"collected {number + 1} items"])
    musts = sum(
        SINGLE.matches(SPEC[check.clause].modes) and SPEC[check.clause].level == "MUST"
        for check in checks()
    )
    shown = project.runpytest_subprocess(*options, "-m", "must").stdout
    left_out = number + 1 - musts
    shown.fnmatch_lines(
        [f"collected {number + 1} items / {left_out} deselected / {musts} selected"]
    )


def test_claims_leave_clauses_out(project: pytest.Pytester) -> None:
    claims = project.path / "claims.toml"
    claims.write_text('without = ["META-*"]\n')
    result = run_pytest(project, "-k", "META-001 or RANKS-001", "--saver-claims", str(claims))
    result.assert_outcomes(passed=1, skipped=1, deselected=_others())
    result.stdout.fnmatch_lines(["*the saver does not claim it*"])


def test_an_unchecked_clause_says_the_exception(project: pytest.Pytester) -> None:
    saver = "tests.helpers.fake_savers:raises_everywhere"
    result = project.runpytest_subprocess(
        *("-p", "no:cacheprovider", "--saver", saver, "--saver-modes", "full-single"),
        *("--saver-profile", "smoke", "-k", "META-001"),
    )
    result.stdout.fnmatch_lines(["*unchecked: rank 0 raised: ValueError: agreed*"])
