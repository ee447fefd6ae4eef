"""RANKS: how the call ends on each rank."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from saver_conformance.checks.evidence import Evidence
from saver_conformance.checks.registry import check
from saver_conformance.finding import Finding


@check("RANKS-001")
def returns_in_time(e: Evidence) -> Iterator[Finding]:
    """No rank was still in the saver when the limit was reached."""
    return _ended(e, "RANKS-001", "hung", "returns within the limit")


@check("RANKS-002")
def does_not_raise(e: Evidence) -> Iterator[Finding]:
    """No rank raised an exception."""
    return _ended(e, "RANKS-002", "raised", "returns without an exception")


@check("RANKS-003")
def does_not_die(e: Evidence) -> Iterator[Finding]:
    """No rank's process ended."""
    return _ended(e, "RANKS-003", "died", "the process lives on")


def _ended(
    e: Evidence, clause: str, status: Literal["hung", "raised", "died"], expected: str
) -> Iterator[Finding]:
    for outcome in e.observation.outcomes:
        if outcome.status == status:
            yield e.finding(
                clause,
                expected,
                f"rank {outcome.rank} {status} after {outcome.seconds:.1f} s: {outcome.detail}",
                rank=outcome.rank,
            )
