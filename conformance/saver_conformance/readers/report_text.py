"""What readers made of a folder, as text and as plain data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from saver_conformance.observation.reading import Part, Reading

NAMES: Mapping[str, str] = {
    "tokens": "token ids",
    "chat": "chat prompt",
    "scores": "scores",
    "chat_scores": "scores after a chat",
    "digests": "tensors",
}
"""The parts in words."""


def describe(readings: Sequence[Reading], origin: Mapping[str, str]) -> Iterator[str]:
    """Lines for people."""
    width = max((len(reading.reader) for reading in readings), default=0)
    for reading in readings:
        yield f"{reading.reader:<{width}}  {_sum_up(reading)}".rstrip()
        for part in reading.parts:
            if part.outcome in ("wrong", "refused"):
                yield from _describe(part)
            elif part.found:
                yield f"    {NAMES[part.name]}: {part.found}"
    if origin:
        yield ""
        told = (f"{NAMES[part]}: {who}" for part, who in sorted(origin.items()))
        yield f"compared with  {'; '.join(told)}"


def as_plain(readings: Sequence[Reading], origin: Mapping[str, str]) -> dict[str, Any]:
    """The same for JSON."""
    plain = [
        asdict(reading) | {"outcome": reading.outcome, "versions": dict(reading.versions)}
        for reading in readings
    ]
    return {"standard": dict(origin), "readers": plain}


def _sum_up(reading: Reading) -> str:
    if reading.unavailable:
        return f"unavailable: {reading.unavailable}"
    parts = ", ".join(f"{NAMES[part.name]} {_told(part)}" for part in reading.parts)
    return f"{reading.outcome:<8} {parts}"


def _told(part: Part) -> str:
    if part.outcome == "right" and part.difference is not None:
        return f"right to {part.difference:.1g}"
    return part.outcome


def _describe(part: Part) -> Iterator[str]:
    yield f"    {NAMES[part.name]}: expected {part.expected}"
    if part.found:
        yield f"      found: {part.found}"
