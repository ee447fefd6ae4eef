"""How a failed save is known again: its kind, its exception and its place."""

from __future__ import annotations

import pytest

from saver_conformance.cases.case import Case, Mode
from saver_conformance.observation.observation import RankOutcome
from saver_conformance.verdict.failures import failure_of

CASE = Case(Mode("full", "ddp"), world_size=2)


def outcome(
    rank: int, status: str, detail: str = "", seconds: float = 0.0, place: str = ""
) -> RankOutcome:
    return RankOutcome(rank, status, detail, seconds, place)  # type: ignore[arg-type]


def test_failure_of_ranks_that_returned_is_none() -> None:
    assert failure_of(CASE, [outcome(0, "returned"), outcome(1, "returned")]) is None


def test_failure_of_a_raise_names_what_came_first() -> None:
    lost = outcome(0, "raised", "RuntimeError: Connection closed\n  File ...", 2.0, "c.py:1 in f")
    first = outcome(1, "raised", "KeyError: 'a: b'\n  File ...", 1.0, "s.py:9 in save")
    failure = failure_of(CASE, [lost, first])
    assert failure is not None
    assert failure.name == ("raised", "KeyError", "s.py:9 in save")
    assert failure.message == "'a: b'"
    assert failure.clauses == ("RANKS-002",)


@pytest.mark.parametrize(
    ("statuses", "kind", "clauses"),
    [
        (("raised", "hung"), "hung", ("RANKS-001", "RANKS-002")),
        (("hung", "hung"), "hung", ("RANKS-001",)),
        (("died", "hung"), "died", ("RANKS-001", "RANKS-003")),
        (("returned", "raised"), "raised", ("RANKS-002",)),
    ],
)
def test_failure_of_mixed_ends_is_the_costliest(
    statuses: tuple[str, str], kind: str, clauses: tuple[str, ...]
) -> None:
    failure = failure_of(CASE, [outcome(rank, status) for rank, status in enumerate(statuses)])
    assert failure is not None
    assert (failure.kind, failure.clauses) == (kind, clauses)
