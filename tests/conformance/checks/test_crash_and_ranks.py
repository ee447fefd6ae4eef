"""What the checks of RANKS, PURITY and CRASH say about made observations."""

from __future__ import annotations

from pathlib import Path

import pytest

from saver_conformance.cases.case import Case, Mode
from saver_conformance.checks import run
from saver_conformance.checks.purity import SHOWN
from saver_conformance.observation.file_operation import FileOperation
from saver_conformance.observation.observation import (
    Crashes,
    Expectation,
    Fault,
    Observation,
    RankOutcome,
)
from saver_conformance.observation.process_diff import Change

DDP = Mode("full", "ddp")
MODELS = {"old": "a", "new": "b"}
FILES = {"old": frozenset({"x"}), "new": frozenset({"x", "y"})}


def observe(probe: str, **seen) -> Observation:
    return Observation(
        case=Case(DDP, probe=probe, world_size=2),
        expected=Expectation(tensors={}),
        outcomes=tuple(RankOutcome(rank, "returned") for rank in range(2)),
        folder=Path("/out"),
        before={},
        after={},
        umask=0o022,
        reload=None,
        **seen,
    )


def found(observation: Observation, area: str) -> dict[str, list[tuple[int | None, str]]]:
    ran = run(observation).ran
    return {
        clause: [(finding.rank, finding.found) for finding in findings]
        for clause, findings in ran.items()
        if clause.startswith(area) and findings
    }


def faulted(kind: str, *ends: str, model=None, again="b", files=("x",), rank=0) -> Observation:
    outcomes = tuple(RankOutcome(number, end, "why") for number, end in enumerate(ends))
    models = {**MODELS, "s": model, "s-again": again, "fine": "b", "fine-again": "b"}
    kept = {**FILES, **dict.fromkeys(("s", "s-again"), frozenset(files))}
    kept |= dict.fromkeys(("fine", "fine-again"), FILES["old"])
    item = Fault(kind, rank, "rename()", "s", outcomes)
    # The checks of kills and those of failures each need one to look at.
    other = "ENOSPC" if kind == "kill" else "kill"
    harmless = Fault(other, 0, "mkdir()", "fine", (RankOutcome(0, "returned"),) * 2)
    return observe("fault_injection", crashes=Crashes("", (item, harmless), models, kept))


ENDS = ("returned", "returned")
RAISED = ("raised", "raised")


@pytest.mark.parametrize(
    ("observation", "broken"),
    [
        (faulted("kill", *ENDS), {}),
        (faulted("kill", *ENDS, model="b"), {}),
        (faulted("kill", *ENDS, model="c"), {"CRASH-001": [0]}),
        (faulted("kill", *ENDS, model="c", rank=1), {"CRASH-001": [1]}),
        (faulted("kill", *ENDS, again="a"), {"CRASH-002": [0]}),
        (faulted("kill", *ENDS, again=None, rank=1), {"CRASH-002": [1]}),
        (faulted("kill", "returned", "hung", files="z"), {"CRASH-002": [1]}),
        (faulted("kill", *RAISED), {"CRASH-002": [0, 1]}),
        (faulted("kill", *ENDS, files="xyz"), {"CRASH-006": [0]}),
        (faulted("EIO", *ENDS, model="b", files="xyz"), {}),
        (faulted("EIO", *ENDS, model="a"), {"CRASH-003": [0]}),
        (faulted("EIO", *RAISED, model="a"), {}),
        (faulted("EIO", *RAISED, model="b", files="xy"), {}),
        (faulted("EIO", *RAISED, model="c"), {"CRASH-004": [0]}),
        (faulted("EIO", *RAISED, rank=1), {"CRASH-004": [1]}),
        (faulted("EIO", *RAISED, model="a", files="z"), {"CRASH-005": [0]}),
        (faulted("EIO", "raised", "returned", model="a"), {"RANKS-005": [1]}),
        (faulted("EIO", "returned", "raised", model="a"), {"RANKS-005": [0]}),
        (faulted("EIO", "raised", "hung", model="a"), {"RANKS-005": [1]}),
        (faulted("EIO", "hung", "raised", model="a"), {"CRASH-003": [0], "RANKS-005": [0]}),
        (
            faulted("EIO", "died", "died", model="a", rank=1),
            {"CRASH-003": [1], "RANKS-005": [0, 1]},
        ),
    ],
)
def test_disturbed_saves(observation, broken):
    told = {**found(observation, "CRASH"), **found(observation, "RANKS")}
    assert {clause: [rank for rank, _ in findings] for clause, findings in told.items()} == broken


@pytest.mark.parametrize(
    ("crashes", "reason"),
    [
        (None, "no fault was injected into a save"),
        (Crashes("no strace"), "no strace"),
        (
            Crashes(models=MODELS, files=FILES),
            "no chosen call occurred again, so no fault could be injected",
        ),
    ],
)
def test_without_disturbances_nothing_is_said(crashes, reason):
    blocked = run(observe("fault_injection", crashes=crashes)).blocked
    clauses = {clause for clause in blocked if clause.startswith("CRASH")} | {"RANKS-005"}
    clauses -= {"CRASH-007", "CRASH-008"}  # about the trace of the save that is left alone
    assert len(clauses) == 7
    assert {blocked[clause] for clause in clauses} == {reason}


@pytest.mark.parametrize(
    ("detail", "said"),
    [("why", "rank 1 returned: why"), ("", "rank 1 returned, and another rank did not")],
)
def test_a_rank_that_ends_otherwise_is_told_with_the_reason_if_there_is_one(detail, said):
    ends = (RankOutcome(0, "raised", "x"), RankOutcome(1, "returned", detail))
    item = Fault("EIO", 0, "rename()", "s", ends)
    crashes = Crashes("", (item,), {**MODELS, "s": "a"}, {**FILES, "s": FILES["old"]})
    assert found(observe("fault_injection", crashes=crashes), "RANKS-005") == {
        "RANKS-005": [(1, said)]
    }


def test_the_place_of_a_disturbance_names_the_rank_among_several():
    one = Fault("kill", 0, "rename()", "s", (RankOutcome(0, "returned"),))
    assert one.place == "killed at rename()"
    two = Fault("EIO", 1, "write()", "s", (RankOutcome(0, "raised"),) * 2)
    assert two.place == "EIO at write() of rank 1"


def test_two_writers_are_named_with_the_file_and_the_byte():
    mine = (FileOperation("writes", "/out/a/b", 0, 10), FileOperation("removes", "/out/c"))
    theirs = (FileOperation("writes", "/out/a/b", 7, 12), FileOperation("removes", "/out/c"))
    observation = observe("file_trace", untraced="", operations=(mine, theirs))
    wrote, removed = run(observation).ran["RANKS-004"]
    assert (wrote.file, wrote.rank, wrote.offset) == ("a/b", 1, 7)
    assert wrote.found == "rank 0 and rank 1: both write it"
    assert (removed.file, removed.offset) == ("c", None)
    assert removed.found == "rank 0 and rank 1: both remove it"
    alone = observe("file_trace", untraced="", operations=(mine, ()))
    assert run(alone).ran["RANKS-004"] == ()


def test_what_was_not_traced_is_not_judged():
    assert run(observe("file_trace", untraced="no strace")).blocked["RANKS-004"] == "no strace"
    nothing = run(observe("file_trace", untraced="", operations=((), ()))).blocked["RANKS-004"]
    assert nothing == "strace saw nobody do anything to a file"
    assert "RANKS-004" not in run(observe("none")).blocked


def test_changes_are_told_for_each_rank_and_cut_short():
    areas = ("weights", "flags", "modules", "random", "configuration", "model configuration")
    areas += ("optimizer", "process", "environment")
    one = tuple(Change(area, "a", "1", "2") for area in areas)
    many = tuple(Change("weights", str(number), "1", "2") for number in range(SHOWN + 2))
    told = found(observe("none", changes=(one, many)), "PURITY")
    assert set(told) == {f"PURITY-{number:03d}" for number in range(1, 10)}
    assert [rank for rank, _ in told["PURITY-001"]] == [0, *[1] * SHOWN, 1]
    assert told["PURITY-001"][-1] == (1, "2 more of the weights")
    assert told["PURITY-002"] == [(0, "now: 2")]
    exactly = (many[:SHOWN], ())
    assert len(found(observe("none", changes=exactly), "PURITY")["PURITY-001"]) == SHOWN
    assert found(observe("none", changes=((), ())), "PURITY") == {}


def test_without_a_look_or_a_twin_nothing_is_said():
    blocked = run(observe("control_run")).blocked
    assert blocked["PURITY-001"] == "nobody looked at what changed in the processes"
    assert blocked["PURITY-010"] == "the save left no folder, so nothing was saved again"


@pytest.mark.parametrize(
    ("model", "said"), [("c", "another model loads"), (None, "no model loads")]
)
def test_what_loads_after_a_failure_is_told(model, said):
    assert found(faulted("EIO", *RAISED, model=model), "CRASH-004") == {"CRASH-004": [(0, said)]}
