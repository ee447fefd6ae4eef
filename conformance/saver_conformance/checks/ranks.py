"""RANKS: how the call ends on each rank."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

from saver_conformance.cases.case import Case
from saver_conformance.checks.crash import crashes_of, failures_of, has_faults
from saver_conformance.checks.evidence import BlockedError, Evidence
from saver_conformance.checks.registry import check
from saver_conformance.observation.file_operation import conflicts
from saver_conformance.observation.finding import Defect
from saver_conformance.observation.observation import RankOutcome

SHOWN_RANKS = 8
"""Ranks that are told of beside one that did not return."""


@check("RANKS-001")
def returns_in_time(e: Evidence) -> Iterator[Defect]:
    """No rank was still in the saver when the limit was reached."""
    return _ended(e, "hung", "returns within the limit")


@check("RANKS-002")
def does_not_raise(e: Evidence) -> Iterator[Defect]:
    """No rank raised an exception."""
    return _ended(e, "raised", "returns without an exception")


@check("RANKS-003")
def does_not_die(e: Evidence) -> Iterator[Defect]:
    """No rank's process ended."""
    return _ended(e, "died", "the process lives on")


def _is_traced(case: Case) -> bool:
    return case.probe == "file_trace"


@check("RANKS-004", when=_is_traced)
def has_one_writer(e: Evidence) -> Iterator[Defect]:
    """No two ranks write one byte, or create, truncate, rename or remove one file."""
    if e.observation.untraced:
        raise BlockedError(e.observation.untraced)
    if not any(e.observation.operations):
        raise BlockedError("strace saw nobody do anything to a file")
    for first, second, operation in conflicts(e.observation.operations):
        yield e.defect(
            "one rank alone does this to a file, or to a byte of it",
            f"rank {first} and rank {second}: both {operation.what.removesuffix('s')} it",
            file=Path(operation.path).relative_to(e.folder).as_posix(),
            rank=second,
            offset=operation.start if operation.what == "writes" else None,
        )


@check("RANKS-005", when=has_faults)
def fails_on_all_ranks(e: Evidence) -> Iterator[Defect]:
    """Where a call failed on one rank, every rank raised, or every rank returned."""
    for item in failures_of(crashes_of(e)):
        if item.has_returned:
            continue
        for outcome in item.outcomes:
            if outcome.status != "raised":
                yield e.defect(
                    f"{item.place}: every rank raises, or every rank returns",
                    f"rank {outcome.rank} {outcome.status}: {outcome.detail}"
                    if outcome.detail
                    else f"rank {outcome.rank} {outcome.status}, and another rank did not",
                    rank=outcome.rank,
                )


def _ended(
    e: Evidence, status: Literal["hung", "raised", "died"], expected: str
) -> Iterator[Defect]:
    outcomes = e.observation.outcomes
    for outcome in outcomes:
        if outcome.status == status:
            others = [item for item in outcomes if item.status != status]
            told = [
                f"rank {outcome.rank} {status} after {outcome.seconds:.1f} s: {outcome.end}",
                *map(_briefly, others[:SHOWN_RANKS]),
                *outcome.detail.splitlines()[1:],
            ]
            defect = e.defect(expected, "\n".join(told), rank=outcome.rank)
            yield replace(defect, ended=outcome.end, place=outcome.place or None)


def _briefly(outcome: RankOutcome) -> str:
    """What another rank did meanwhile."""
    return f"rank {outcome.rank}: {outcome.status} after {outcome.seconds:.1f} s" + (
        f": {outcome.end}" if outcome.end else ""
    )
