"""A saver that raises is judged in every case; hangs and deaths are bounded by their causes."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.helpers.verdicts import make_finding

from saver_conformance.cases.case import MODES, Case, Mode
from saver_conformance.cases.profiles import cases_of, in_order
from saver_conformance.cases.strategies import make_case
from saver_conformance.execution import pipeline
from saver_conformance.execution.case_runner import CaseRunner
from saver_conformance.execution.workload import Workload
from saver_conformance.processes import world
from saver_conformance.processes.world import World
from saver_conformance.run import run_conformance
from saver_conformance.verdict.verdict import (
    BROKEN,
    CONFORMS,
    INCONCLUSIVE,
    CaseRecord,
    Verdict,
    aggregate,
)
from saver_conformance.verdict.waivers import Waiver, apply

ROOT = Path(__file__).parents[3]
FAKE = "tests.helpers.fake_workload"
WORKLOAD = Workload(FAKE, FAKE, FAKE, process_group=False, operators="")
DDP = Mode("full", "ddp")


@pytest.fixture(autouse=True)
def short_limits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(world, "GRACE", 0.5)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[World]:
    """The worlds that are started."""
    worlds: list[World] = []
    join = World.join

    def joined(self: World) -> None:
        worlds.append(self)
        join(self)

    monkeypatch.setattr(World, "join", joined)
    return worlds


def run(function: str, profile: str = "smoke", limit: float = 2, **options: object) -> Verdict:
    saver = f"tests.helpers.fake_savers:{function}"
    return run_conformance(
        *(saver,), modes=(DDP,), profile=profile, save_limit=limit, workload=WORKLOAD, **options
    )  # type: ignore[arg-type]


def test_a_raise_ends_no_mode_and_no_world(started: list[World]) -> None:
    verdict = run("raises_everywhere")
    assert [record.status for record in verdict.records] == ["run"] * len(cases_of(DDP, "smoke"))
    assert len(started) == 2  # one for each number of machines
    assert verdict.exit_code == BROKEN
    [cause] = verdict.failures
    assert (cause.exception, cause.cases) == ("ValueError", verdict.executed)
    assert cause.text.endswith("in every case that was tried")


def test_a_raise_on_some_ranks_keeps_the_world(started: list[World]) -> None:
    verdict = run("raises_on_rank_1")
    assert verdict.executed == verdict.expected
    assert len(started) == 2


@pytest.mark.parametrize(
    "function",
    [
        "raises_at_first_and_otherwise_later",
        "raises_at_first_and_leaves_a_file_later",
        "raises_at_first_and_hangs_later",
    ],
)
def test_what_an_earlier_raise_left_on_the_ranks_is_not_laid_at_the_next_case(
    function: str,
) -> None:
    verdict = run(function)
    assert verdict.executed == verdict.expected
    assert {finding.clause for finding in verdict.findings} == {"RANKS-002"}
    assert all("agreed" in finding.found for finding in verdict.findings)


@pytest.mark.parametrize("function", ["leaves_the_group", "collects_on_rank_1_and_raises"])
def test_ranks_that_do_not_meet_again_are_replaced(
    function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world, "MEET_LIMIT", 2)
    saver = f"tests.helpers.fake_savers:{function}"
    with CaseRunner(
        saver, workload=Workload(FAKE, FAKE, FAKE, operators=""), save_limit=60
    ) as judge:
        case = Case(DDP, world_size=2)
        pids = []
        for _ in range(2):
            judge.make_ready(case)
            pids += [item.pids for item in judge._worlds.running]
            record = judge.run(case)
            assert record.failure is not None
            assert record.failure.exception == "ValueError"
        assert pids[0] != pids[1]


def test_a_total_bounds_failures_that_nothing_explains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "FAILURES_A_CAUSE", {"hung": 99, "died": 99})
    monkeypatch.setattr(pipeline, "FAILURES_A_MODE", 1)
    verdict = run("kills_itself_on_rank_1")
    assert [record.status for record in verdict.records] == ["run", "skipped", "skipped"]
    assert "for several reasons" in verdict.records[1].reason


def test_cases_with_trials_come_first_in_each_mode() -> None:
    for mode in MODES:
        trials = [case.probe for case in cases_of(mode, "gate")]
        count = len([probe for probe in trials if probe != "none"])
        assert "none" not in trials[:count]
    planned = in_order(case for mode in MODES for case in cases_of(mode, "gate"))
    for mode in MODES:
        assert next(case for case in planned if case.mode == mode).probe == "control_run"


def test_a_waived_raise_waives_what_it_keeps_from_being_checked() -> None:
    waiver = Waiver("RANKS-002", "full-ddp", "known", "https://example.org/1")
    verdict = run("raises_in_case_2", waivers=[waiver])
    rows = {row.clause: row for row in verdict.rows if row.mode == DDP}
    assert rows["RANKS-002"].status == "waived"
    assert all(row.status != "unavailable" for row in rows.values() if row.stopped_by)
    assert not verdict.waiver_faults


def conclude(statuses: dict[str, str], *waived: str) -> Verdict:
    """The verdict of a case that is saved, and of one for each clause that stops it."""
    clauses = ("FILES-001", "RANKS-001", "RANKS-002", "RANKS-003")
    records = [CaseRecord(make_case(DDP, {}), clauses, "run", ran=dict.fromkeys(clauses, ()))]
    for seed, (clause, status) in enumerate(statuses.items(), start=1):
        case = make_case(DDP, {}, seed=seed)
        ran = {item: () for item in clauses if item.startswith("RANKS")} if status == "run" else {}
        if status == "run":
            ran[clause] = (make_finding(clause, case),)  # type: ignore[assignment]
        records.append(
            CaseRecord(case, clauses, status, "because", ran, stopped_by=(clause,))  # type: ignore[arg-type]
        )
    levels = dict.fromkeys(clauses, "MUST")
    rows = aggregate(records, (DDP,), levels, dict.fromkeys(clauses, MODES))  # type: ignore[arg-type]
    waivers = [Waiver(clause, "full-ddp", "known", "https://example.org") for clause in waived]
    rows, faults = apply(rows, waivers, (DDP,))
    return Verdict("a:b", "gate", (DDP,), rows, tuple(records), levels, waiver_faults=faults)  # type: ignore[arg-type]


def test_waived_raises_do_not_make_a_run_inconclusive() -> None:
    assert conclude({"RANKS-002": "run"}).exit_code == BROKEN
    verdict = conclude({"RANKS-002": "run"}, "RANKS-002")
    assert verdict.exit_code == CONFORMS
    [row] = [row for row in verdict.rows if (row.clause, row.mode) == ("FILES-001", DDP)]
    assert row.status == "waived"
    assert "RANKS-002 is broken, which is waived: known" in row.reason


def test_a_case_skipped_for_a_waived_hang_is_not_missing() -> None:
    both = {"RANKS-001": "run"}
    records = conclude(both, "RANKS-001")
    assert records.exit_code == CONFORMS
    skipped = conclude({"RANKS-001": "skipped"})
    assert skipped.exit_code == INCONCLUSIVE


def test_what_several_causes_hide_is_waived_only_with_all_of_them() -> None:
    statuses = {"RANKS-002": "run", "RANKS-003": "run"}
    assert conclude(statuses, "RANKS-002").exit_code == BROKEN
    assert conclude(statuses, "RANKS-002", "RANKS-003").exit_code == CONFORMS


def test_waived_raises_in_every_case_prove_nothing() -> None:
    waiver = Waiver("RANKS-002", "full-ddp", "known", "https://example.org/1")
    assert run("raises_everywhere", waivers=[waiver]).exit_code == INCONCLUSIVE
