"""Runs over a workload without a framework: how savers that ruin their ranks are judged."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from saver_conformance.cases.case import Case, Mode
from saver_conformance.cases.profiles import cases_of, in_order
from saver_conformance.errors import HarnessFailedError, UnknownSaverError
from saver_conformance.execution.case_runner import CaseRunner
from saver_conformance.execution.progress import Silent
from saver_conformance.execution.workload import Workload
from saver_conformance.processes import world
from saver_conformance.run import replay, run_conformance
from saver_conformance.verdict.verdict import (
    BROKEN,
    HARNESS_FAILED,
    INCONCLUSIVE,
    CaseRecord,
    Verdict,
)

ROOT = Path(__file__).parents[2]
FAKE = "tests.helpers.fake_workload"
WORKLOAD = Workload(FAKE, FAKE, FAKE, process_group=False, operators="")
DDP = Mode("full", "ddp")


@pytest.fixture(autouse=True)
def short_limits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(world, "GRACE", 0.5)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def run(function: str, modes: tuple[Mode, ...] = (DDP,)) -> Verdict:
    saver = f"tests.helpers.fake_savers:{function}"
    return run_conformance(saver, modes=modes, profile="smoke", save_limit=1, workload=WORKLOAD)


def broken_ranks(verdict: Verdict) -> set[tuple[str, int | None]]:
    return {
        (finding.clause, finding.rank)
        for finding in verdict.findings
        if finding.clause.startswith("RANKS")
    }


@pytest.mark.parametrize(
    ("function", "clause", "words"),
    [
        ("raises_on_rank_1", "RANKS-002", "RuntimeError: only here"),
        ("sleeps_on_rank_1", "RANKS-001", "in sleeps_on_rank_1"),
        ("kills_itself_on_rank_1", "RANKS-003", "killed by SIGKILL"),
    ],
)
def test_a_finding_names_the_rank_that_fails(function: str, clause: str, words: str) -> None:
    verdict = run(function)
    assert verdict.exit_code == BROKEN
    assert broken_ranks(verdict) == {(clause, 1)}
    [row] = [row for row in verdict.rows if row.clause == clause and row.status == "fail"]
    assert words in row.findings[0].found


def test_other_modes_go_on_in_a_new_world(tmp_path: Path) -> None:
    verdict = run("kills_itself_on_rank_1", (DDP, Mode("full", "fsdp2"), Mode("full", "single")))
    run_modes = {record.case.mode.engine for record in verdict.records if record.status == "run"}
    assert run_modes == {"ddp", "fsdp2", "single"}
    assert verdict.executed == verdict.expected
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("saver-conformance")]


def test_a_cause_that_hangs_twice_skips_the_cases_that_share_it() -> None:
    verdict = run("sleeps_on_rank_1")
    assert [record.status for record in verdict.records] == ["run", "run", "skipped"]
    assert "the saver hung in 2 cases of full-ddp" in verdict.records[2].reason
    assert verdict.records[2].stopped_by == ("RANKS-001",)
    assert verdict.executed < verdict.expected


def test_a_saver_that_does_nothing_is_wrong() -> None:
    assert run("does_nothing").exit_code == BROKEN


def test_the_engines_pace_is_told() -> None:
    [pace] = run("save").paces
    assert (pace.engine, pace.cases) == ("ddp", len(cases_of(DDP, "smoke")))
    assert pace.per_minute > 0


@pytest.mark.parametrize(
    "address", ["nowhere", "no_such_module:save", "tests.helpers.fake_savers:missing"]
)
def test_an_unknown_saver_accuses_nobody(address: str) -> None:
    with pytest.raises(UnknownSaverError):
        run_conformance(address, modes=(DDP,), profile="smoke", workload=WORKLOAD)


def test_a_broken_bench_accuses_nobody() -> None:
    broken = Workload("no.such.workload", FAKE, FAKE, process_group=False, operators="")
    with pytest.raises(HarnessFailedError, match="did not start"):
        run_conformance(
            "tests.helpers.fake_savers:save", modes=(DDP,), profile="smoke", workload=broken
        )


def test_a_harness_that_fails_after_some_cases_keeps_what_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready, last = CaseRunner.make_ready, in_order(cases_of(DDP, "smoke"))[-1].seed

    def make_ready(self: CaseRunner, case: Case) -> None:
        if case.seed == last:
            raise HarnessFailedError("the ranks cannot be started any more")
        ready(self, case)

    monkeypatch.setattr(CaseRunner, "make_ready", make_ready)
    monkeypatch.setattr("saver_conformance.execution.pipeline.BACKLOG", 0)
    with pytest.raises(HarnessFailedError, match=r"(?s)any more.*until then is in .*report"):
        run_conformance(
            "tests.helpers.fake_savers:save",
            modes=(DDP,),
            profile="smoke",
            report=tmp_path / "report",
            workload=WORKLOAD,
        )
    plain = json.loads((tmp_path / "report" / "report.json").read_text())
    assert plain["interrupted"] is True
    assert [one["case"]["seed"] for one in plain["not_run"]] == [last]


def judge_one(seed: int, function: str = "save") -> Verdict:
    case = Case(DDP, world_size=2, seed=seed)
    return replay(case, f"tests.helpers.fake_savers:{function}", workload=WORKLOAD)


def test_a_missing_library_is_inconclusive() -> None:
    verdict = judge_one(404)
    assert verdict.exit_code == INCONCLUSIVE
    assert {row.status for row in verdict.rows if row.mode == DDP} == {"unavailable"}
    assert verdict.records[0].reason == "the fake library is not installed"


def test_a_case_that_cannot_be_trained_is_the_harness_failing() -> None:
    verdict = judge_one(500)
    assert verdict.exit_code == HARNESS_FAILED
    assert {row.status for row in verdict.rows if row.mode == DDP} == {"error"}
    assert "the fake workload is broken" in verdict.records[0].reason
    assert not verdict.findings


def test_a_reload_that_hangs_or_dies_is_a_failed_reload(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saver_conformance.processes.reloader.RELOAD_LIMIT", 1.0)
    hung = [item for item in judge_one(600).findings if item.clause == "RELOAD-001"]
    assert "did not end within 1 s" in hung[0].found
    died = [item for item in judge_one(601).findings if item.clause == "RELOAD-001"]
    assert "exit code 9" in died[0].found


class Interrupted(Silent):
    """Someone who presses Ctrl-C after the first case."""

    def finish(self, record: CaseRecord) -> None:
        raise KeyboardInterrupt


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_conformance(
            "tests.helpers.fake_savers:save",
            modes=(DDP,),
            profile="gate",
            progress=Interrupted(),
            workload=WORKLOAD,
        )
    assert time.monotonic() - started < 20
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("saver-conformance")]


def test_a_judge_can_be_stopped_twice() -> None:
    judge = CaseRunner("tests.helpers.fake_savers:save", workload=WORKLOAD)
    judge.stop()
    judge.stop()


@pytest.mark.parametrize("more", [-1, 80])
def test_ranks_with_too_many_threads_take_no_further_case(
    more: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saver_conformance.execution.worlds.MORE_THREADS", more)
    case = Case(DDP, world_size=2)
    with CaseRunner("tests.helpers.fake_savers:save", workload=WORKLOAD) as judge:
        judge.make_ready(case)
        before = judge._worlds.of(case).pids
        assert judge.run(case).status == "run"
        judge.make_ready(case)
        assert (judge._worlds.of(case).pids == before) == (more > 0)


def test_reload_after_the_server_was_killed_is_forked_from_a_new_one(tmp_path: Path) -> None:
    case = Case(DDP, world_size=2)
    with CaseRunner("tests.helpers.fake_savers:save", workload=WORKLOAD) as judge:
        assert judge.run(case).status == "run"
        judge._reload_server._popen.kill()
        judge._reload_server._popen.wait()
        reloaded = judge._reloader.reload(case, tmp_path)
        assert (reloaded.class_name, reloaded.error) == (case.architecture, "")


def test_reload_with_a_module_that_cannot_be_imported_is_the_harness_failing(
    tmp_path: Path,
) -> None:
    workload = Workload(FAKE, FAKE, "no.such.workload", process_group=False, operators="")
    with (
        CaseRunner("tests.helpers.fake_savers:save", workload=workload) as judge,
        pytest.raises(HarnessFailedError, match="No module named"),
    ):
        judge._reloader.reload(Case(DDP, world_size=2), tmp_path)


def test_reload_once_the_run_is_over_is_refused(tmp_path: Path) -> None:
    judge = CaseRunner("tests.helpers.fake_savers:save", workload=WORKLOAD)
    judge.stop()
    with pytest.raises(HarnessFailedError, match="over"):
        judge._reloader.reload(Case(DDP, world_size=2), tmp_path)
