"""A case that may be refused is judged by how the call ends, as long as nothing has changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from saver_conformance.cases.case import Case, Mode
from saver_conformance.cases.strategies import make_case
from saver_conformance.checks import run
from saver_conformance.execution.saved_case import SavedCase
from saver_conformance.observation.observation import (
    Entry,
    Expectation,
    Observation,
    RankOutcome,
)

ENDS = {"RANKS-001", "RANKS-002", "RANKS-003"}
OWN_DISKS = make_case(Mode("full", "fsdp2"), {"disks": "own"}, nodes=2)
OVER_BASE = make_case(Mode("lora", "fsdp2"), {"setting": "output-is-base"})
USUAL = make_case(Mode("full", "fsdp2"), {}, nodes=2)
BASE = {"model.safetensors": Entry("file", 0o644, 8, "a")}


def observe(case: Case, *ends: str, after=BASE) -> Observation:
    return Observation(
        case=case,
        expected=Expectation(tensors={}),
        outcomes=tuple(RankOutcome(rank, end, "why") for rank, end in enumerate(ends)),
        folder=Path("/out"),
        before=BASE,
        after=after,
        umask=0o022,
        reload=None,
    )


def saved(seen: Observation) -> SavedCase:
    return SavedCase(seen.case, Path("/"), seen.before, seen.after, seen.outcomes, 0.0)


@pytest.mark.parametrize("case", [OWN_DISKS, OVER_BASE])
def test_refusal_on_every_rank_breaks_nothing_and_hides_nothing(case: Case) -> None:
    seen = observe(case, "raised", "raised")
    results = run(seen)
    assert set(results.ran) == ENDS
    assert not results.findings
    assert not results.blocked
    assert saved(seen).failure is None


@pytest.mark.parametrize(
    ("case", "ends", "after"),
    [
        (OVER_BASE, ("raised", "raised"), {}),  # the base is gone
        (OVER_BASE, ("raised", "raised"), {**BASE, "new": Entry("file", 0o644, 1, "b")}),
        (OWN_DISKS, ("raised", "returned"), BASE),
        (USUAL, ("raised", "raised"), BASE),
    ],
)
def test_error_that_is_no_refusal_breaks_a_must(case, ends, after) -> None:
    seen = observe(case, *ends, after=after)
    assert run(seen).broken == {"RANKS-002"}
    failure = saved(seen).failure
    assert failure is not None
    assert failure.clauses == ("RANKS-002",)


def test_hang_of_a_rank_while_others_refuse_breaks_a_must() -> None:
    assert "RANKS-001" in run(observe(OWN_DISKS, "raised", "hung")).broken
