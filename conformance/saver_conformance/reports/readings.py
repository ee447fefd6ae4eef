"""What readers made of a run's folders, for the report and for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from saver_conformance.observation.reading import Comparison, Part
from saver_conformance.verdict.verdict import CaseRecord


def readings_as_plain(records: Sequence[CaseRecord]) -> list[dict[str, Any]]:
    """One entry for each reader and folder that it was asked about."""
    return [
        {
            "mode": record.case.mode.name,
            "architecture": record.case.architecture,
            "reader": one.saved.reader,
            "versions": dict(one.saved.versions),
            "unavailable": one.saved.unavailable,
            "saved": one.saved.outcome,
            "plain": one.plain.outcome,
            "seconds": round(one.saved.seconds, 2),
            "faults": [_fault(part, also_plain) for part, also_plain in one.faults()],
        }
        for record in records
        for one in record.comparisons
    ]


def describe_readings(records: Sequence[CaseRecord]) -> Iterator[str]:
    """A line for each reader; empty where none was asked."""
    by_reader: dict[str, list[Comparison]] = {}
    for record in records:
        for one in record.comparisons:
            by_reader.setdefault(one.saved.reader, []).append(one)
    if by_reader:
        yield ""
        yield "what readers make of the folders, and of plain saves of the same models:"
    for reader, found in by_reader.items():
        if why := found[0].saved.unavailable:
            yield f"  {reader}: unavailable: {why}"
        else:
            saved = Counter(one.saved.outcome for one in found)
            plain = Counter(one.plain.outcome for one in found)
            yield f"  {reader}: {_told(saved)} ({_told(plain)} of plain saves)"


def _told(outcomes: Counter[Any]) -> str:
    return ", ".join(f"{outcome} {number}" for outcome, number in outcomes.most_common())


def _fault(part: Part, also_plain: bool) -> dict[str, Any]:
    return {
        "part": part.name,
        "outcome": part.outcome,
        "expected": part.expected,
        "found": part.found,
        "also_plain": also_plain,
    }
