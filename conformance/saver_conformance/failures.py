"""Saves that failed as a whole, grouped by what went wrong and where: told before all else.

A rank that raises, hangs or dies leaves most clauses of its case unchecked, and a save that changes
no file breaks most of them. Whoever mends the saver wants each such defect once, by exception type
and place, with the number of cases and their modes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from saver_conformance.case import Case, Mode
from saver_conformance.complexity import complexity
from saver_conformance.finding import Finding
from saver_conformance.verdict import CaseRecord, Row

Kind = Literal["changed nothing", "died", "raised", "hung"]

KINDS: tuple[Kind, ...] = ("changed nothing", "died", "raised", "hung")
"""In the order in which they are told: a rank may raise or hang because another has died."""

_KIND_OF: dict[str, Kind] = {"RANKS-001": "hung", "RANKS-002": "raised", "RANKS-003": "died"}
_UNCHANGED = "the save changed no file in the output folder"


@dataclass(frozen=True, slots=True)
class Failure:
    """Saves that failed in one way at one place.

    Attributes:
        kind: what became of the save.
        place: the saver's own innermost frame; empty when none is known.
        messages: how the saves ended, in one line each, the most frequent first.
        ends: the same as reasons of checks that were not made, with the rank.
        example: a finding of the simplest case.
        modes: the modes in which it happened.
        cases: number of cases in which it happened.
    """

    kind: Kind
    place: str
    messages: tuple[str, ...]
    ends: tuple[str, ...]
    example: Finding
    modes: tuple[Mode, ...]
    cases: int


def group_failures(rows: Iterable[Row], records: Iterable[CaseRecord]) -> tuple[Failure, ...]:
    """The failures among ``rows`` that fail and their ``records``, each defect once."""
    failing = [row for row in rows if row.status == "fail"]
    groups: dict[tuple[Kind, str, str], list[Finding]] = {}
    for row in failing:
        for finding in row.findings:
            if finding.clause in _KIND_OF and finding.ended is not None:
                kind = _KIND_OF[finding.clause]
                # Messages of one exception differ by names and numbers, those of a hang by seconds.
                what = "" if kind == "hung" else finding.ended.partition(":")[0]
                groups.setdefault((kind, what, finding.place or ""), []).append(finding)
    if unchanged := list(_of_unchanged(failing, records)):
        groups["changed nothing", "", ""] = unchanged
    failures = [_failure(kind, place, found) for (kind, _, place), found in groups.items()]
    return tuple(sorted(failures, key=lambda item: (KINDS.index(item.kind), -item.cases)))


def end_of(rank: int | None, kind: Kind, message: str) -> str:
    """How a rank ended, as the reason of a check that was not made has it."""
    return f"rank {rank} {kind}: {message}" if message else f"rank {rank} {kind}"


def _of_unchanged(rows: Sequence[Row], records: Iterable[CaseRecord]) -> Iterator[Finding]:
    """The first finding of each failing case in which no file was changed."""
    told: set[Case] = set()
    silent = {record.case for record in records if record.unchanged}
    for row in rows:
        for finding in row.findings:
            if finding.case in silent - told:
                told.add(finding.case)
                yield finding


def _failure(kind: Kind, place: str, findings: Sequence[Finding]) -> Failure:
    if kind == "changed nothing":
        messages, ends = [_UNCHANGED], set[str]()
    else:
        counted = Counter(finding.ended or "" for finding in findings)
        messages = [message for message, _ in counted.most_common()]
        ends = {end_of(item.rank, kind, item.ended or "") for item in findings}
    return Failure(
        kind=kind,
        place=place,
        messages=tuple(messages),
        ends=tuple(sorted(ends)),
        example=min(findings, key=lambda finding: complexity(finding.case)),
        modes=tuple(dict.fromkeys(finding.case.mode for finding in findings)),
        cases=len({finding.case for finding in findings}),
    )
