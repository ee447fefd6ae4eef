"""RANKS: how the call ends on each rank."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from saver_conformance.cases.case import Case
from saver_conformance.checks.crash import crashes_of, failures_of, has_faults
from saver_conformance.checks.evidence import BlockedError, Evidence
from saver_conformance.checks.registry import check
from saver_conformance.observation.file_operation import conflicts
from saver_conformance.observation.finding import Defect
from saver_conformance.observation.observation import RankOutcome, failed
from saver_conformance.observation.process_diff import OUTPUT, Change

ROOM = 16_000_000
"""Bytes that libraries and buffers may take in a save, whatever the size of the model."""
PARTS = 4
"""Ranks that share a model, at least, for a part of it to be told from the whole."""
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


def _watches_memory(case: Case) -> bool:
    # On fewer, a few times a rank's part is the whole model.
    enough = case.world_size // case.replicas >= PARTS
    return case.probe == "memory" and case.mode.definition.shards and enough


@check("RANKS-006", when=_watches_memory)
def keeps_to_its_shard(e: Evidence) -> Iterator[Defect]:
    """The memory of each rank grew by no more than its own part of the weights has room for."""
    if e.observation.memory is None:
        raise BlockedError("nobody looked at the memory of the ranks")
    sizes = [len(tensor.data) for tensor in e.expected.tensors.values()]
    part = sum(sizes) * e.case.replicas // e.case.world_size
    limit = part * 5 // 2 + 2 * max(sizes) + ROOM
    for rank, growth in enumerate(e.observation.memory):
        if growth > limit:
            yield e.defect(
                f"at most {limit} bytes more: the rank's part has {part}, the largest tensor "
                f"{max(sizes)}",
                f"{growth} bytes more, {growth / sum(sizes):.1f} times the model",
                rank=rank,
            )


def _has_other_ranks(case: Case) -> bool:
    return case.world_size > 1


@check("RANKS-007", when=_has_other_ranks)
def waits_for_the_folder(e: Evidence) -> Iterator[Defect]:
    """What lay in the folder when the saver returned on a rank is what lies there at the end."""
    later = _changed_after_all_returned(e)
    for path, changes in _changed_after_return(e).items():
        if path in later:
            continue  # RANKS-008 has it
        for rank, change in changes.items():
            found = f"{change.before} when the saver returned on rank {rank}, {change.after} later"
            yield e.defect("each rank waits until the folder is whole", found, file=path, rank=rank)


@check("RANKS-008")
def writes_nothing_later(e: Evidence) -> Iterator[Defect]:
    """Nothing in the folder changes once the saver has returned on every rank."""
    for path, change in _changed_after_all_returned(e).items():
        yield e.defect(
            "unchanged once the saver has returned on every rank",
            f"{change.before} when the saver had returned, {change.after} later",
            file=path,
        )


def _changed_after_all_returned(e: Evidence) -> Mapping[str, Change]:
    """By file of the model, its change after the last rank's return: each saw it, or the suite."""
    found = {
        path: changes[0]
        for path, changes in _changed_after_return(e).items()
        if len(changes) == e.case.world_size
    }
    return found | {item.name: item for item in e.observation.later if e.is_of_model(item.name)}


def _changed_after_return(e: Evidence) -> Mapping[str, Mapping[int, Change]]:
    """By file of the model, the ranks on which the saver had returned before its last change."""
    if failed(e.observation.outcomes) or e.observation.changes is None:
        raise BlockedError("nobody looked at what lay in the folder when a rank returned")
    found: dict[str, dict[int, Change]] = {}
    for rank, changes in enumerate(e.observation.changes):
        for change in changes:
            if change.area == OUTPUT and e.is_of_model(change.name):
                found.setdefault(change.name, {})[rank] = change
    return found


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
