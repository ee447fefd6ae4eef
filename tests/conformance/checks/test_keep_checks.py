"""What the checks of KEEP say about made trainings with checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from saver_conformance.cases.case import Case, Mode
from saver_conformance.checks import applicable, run
from saver_conformance.observation.checkpoints import Checkpoints, Cut, Moment
from saver_conformance.observation.observation import Expectation, Observation, RankOutcome

SINGLE = Mode("full", "single")
KEPT: Mapping[int, tuple[int, ...]] = {1: (1,), 2: (1, 2), 3: (1, 2, 3), 4: (2, 3, 4), 5: (2, 4, 5)}
"""The steps of what is there after each save: three at most, the second the best."""


def moment(step: int, *there: int, **faults: str) -> Moment:
    found = dict.fromkeys(there or KEPT[step], "")
    found |= {int(name.removeprefix("at_")): fault for name, fault in faults.items()}
    return Moment(f"after step {step}", step, min(step, 2), found)


RIGHT = Checkpoints(
    limit=3,
    moments=tuple(moment(step) for step in KEPT),
    cuts=(Cut(moment(3), "mkdir()", 3), Cut(moment(3, at_4="half"), "write()", 3)),
    resumes=True,
)


def found(checkpoints: Checkpoints | None, mode: Mode = SINGLE) -> dict[str, list[str]]:
    observation = Observation(
        case=Case(mode, probe="checkpoints", world_size=mode.definition.world_sizes[0]),
        expected=Expectation(tensors={}),
        outcomes=(RankOutcome(0, "returned"),),
        folder=Path("/out"),
        before={},
        after={},
        umask=0o022,
        reload=None,
        checkpoints=checkpoints,
    )
    results = run(observation)
    told = {
        clause: [finding.found for finding in findings]
        for clause, findings in results.ran.items()
        if clause.startswith("KEEP") and findings
    }
    return told | {c: [why] for c, why in results.blocked.items() if c.startswith("KEEP")}


def after(step: int, other: Moment) -> Checkpoints:
    return replace(RIGHT, moments=(*RIGHT.moments[: step - 1], other, *RIGHT.moments[step:]))


def cut(*cuts: Cut) -> Checkpoints:
    return replace(RIGHT, cuts=cuts)


def test_keep_right_checkpoints_break_nothing() -> None:
    assert found(RIGHT) == {}


@pytest.mark.parametrize(
    ("seen", "broken"),
    [
        (after(5, moment(5, 3, 4, 5)), {"KEEP-001": ["no such checkpoint"]}),
        (after(4, moment(4, at_2="other bits")), {"KEEP-001": ["other bits"]}),
        (after(3, moment(3, 1, 2)), {"KEEP-002": ["no such checkpoint"]}),
        (after(3, moment(3, at_3="half")), {"KEEP-002": ["half"]}),
        (after(5, moment(5, 2, 5)), {"KEEP-006": ["missing: checkpoint-4"]}),
        (after(5, moment(5, 2, 3, 5)), {"KEEP-006": ["missing: checkpoint-4"]}),
        (after(3, moment(3, 2, 3)), {"KEEP-006": ["missing: checkpoint-1"]}),
        (replace(RIGHT, resume_fault="other bits"), {"KEEP-007": ["other bits"]}),
        (cut(Cut(moment(3, 1, 3), "rmdir()", 3)), {"KEEP-003": ["no such checkpoint"]}),
        (cut(Cut(moment(3, 1, 2), "rename()", None)), {"KEEP-003": ["no such checkpoint"]}),
        (
            cut(Cut(moment(3, at_4="half"), "write()", 4)),
            {"KEEP-004": ["checkpoint-4: half"]},
        ),
        (
            cut(Cut(moment(3, 1, 2, 3, 4), "write()", 4, "it raised")),
            {"KEEP-004": ["checkpoint-4: it raised"]},
        ),
    ],
)
def test_keep_each_loss_breaks_one_clause(seen: Checkpoints, broken: dict[str, list[str]]) -> None:
    assert found(seen) == broken


def test_keep_more_checkpoints_than_the_limit_are_no_loss() -> None:
    assert found(after(5, moment(5, 1, 2, 3, 4, 5))) == {}


def test_keep_a_kill_after_the_new_one_is_whole_may_cost_an_older_one() -> None:
    assert found(cut(Cut(moment(3, 2, 4), "rmdir()", 4))) == {}


def test_keep_no_checkpoint_found_after_a_kill_is_no_wrong_one() -> None:
    assert found(cut(Cut(moment(3), "rename()", None))) == {}


def test_keep_a_file_of_others_is_told_once_with_its_name() -> None:
    lost = replace(moment(4), foreign=("checkpoint-1-mine/model.safetensors",))
    also = replace(moment(5), foreign=lost.foreign)
    seen = replace(RIGHT, moments=(*RIGHT.moments[:3], lost, also))
    assert found(seen) == {"KEEP-005": ["missing, or with other bytes"]}


def test_keep_a_training_that_fails_says_so_and_nothing_else() -> None:
    told = found(Checkpoints(error="rank 0 raised: ValueError"))
    assert told.pop("KEEP-002") == ["rank 0 raised: ValueError"]
    assert set(map(str, told.values())) == {"['the training with checkpoints failed']"}


@pytest.mark.parametrize("seen", [None, Checkpoints(unavailable="no part in it")])
def test_keep_without_a_training_nothing_is_said(seen: Checkpoints | None) -> None:
    told = found(seen)
    assert len(told) == 7
    assert all(reason != [] for reason in told.values())
    assert len({reason[0] for reason in told.values()}) == 1


def test_keep_several_ranks_are_not_killed() -> None:
    case = Case(Mode("full", "fsdp2"), probe="checkpoints", world_size=2)
    clauses = {clause for clause in applicable(case) if clause.startswith("KEEP")}
    assert clauses.isdisjoint({"KEEP-003", "KEEP-004"})
    assert len(clauses) == 5


def test_keep_other_cases_have_no_checkpoints() -> None:
    assert not any(clause.startswith("KEEP") for clause in applicable(Case(SINGLE)))
