"""From samples to ratios with a spread. Pure functions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

FLUSHING = frozenset({"reference", "unchecked", "limit", "one_file"})
"""Contestants that flush to disk themselves, so that each policy is measured apart."""

TOLERANCE = 1.10
"""Two runs agree on a ratio when the ranges of their rounds, widened by this factor, overlap."""


@dataclass(frozen=True)
class Summary:
    """All rounds of one contestant in one cell under one policy.

    Attributes:
        cell, contestant: what was measured.
        durable: whether the time ends with the bytes on the disk.
        bytes: of the model.
        rounds: how many.
        seconds: median over the rounds.
        range: the least and the greatest of these seconds.
        ratio: of the seconds to the reference's, of all pairs of one round of each: least, median,
            greatest. Pairs of the same round alone would leave out most of what the reference does
            where a peer is in few rounds.
        memory: bytes of extra memory on the worst rank, the greatest of all rounds.
        written: bytes that reached the disk, by the model's, median.
        phases: of the reference, the median seconds of each phase on rank 0.
    """

    cell: str
    contestant: str
    durable: bool
    bytes: int
    rounds: int
    seconds: float
    range: tuple[float, float]
    ratio: tuple[float, float, float]
    memory: int
    written: float
    phases: dict[str, float]


def summarize(samples: Sequence[dict[str, Any]]) -> list[Summary]:
    """Summarize samples, in the order in which cells and contestants come.

    Ours are measured under each policy apart, since they flush while they write; of a peer, one
    save gives both times: without the flush, and with the flush that follows.
    """
    grouped: dict[tuple[str, str, bool], dict[int, dict[str, Any]]] = defaultdict(dict)
    for sample in samples:
        apart = sample["contestant"] in FLUSHING
        for durable in (False, True):
            if not apart or sample["durable"] == durable:
                key = sample["cell"], sample["contestant"], durable
                grouped[key][sample["round"]] = sample
    found = []
    for (cell, contestant, durable), rounds in grouped.items():
        ours = grouped.get((cell, "reference", durable), {})
        ratios = [
            _seconds(sample, durable) / _seconds(reference, durable)
            for sample in rounds.values()
            for reference in ours.values()
        ]
        if not ratios:
            continue
        seconds = [_seconds(sample, durable) for sample in rounds.values()]
        found.append(
            Summary(
                cell,
                contestant,
                durable,
                next(iter(rounds.values()))["bytes"],
                len(rounds),
                median(seconds),
                (min(seconds), max(seconds)),
                (min(ratios), median(ratios), max(ratios)),
                max(max(sample["memory"]) for sample in rounds.values()),
                median(sample["written"] / sample["bytes"] for sample in rounds.values()),
                _phases(list(rounds.values())),
            )
        )
    return found


def _phases(rounds: Sequence[dict[str, Any]]) -> dict[str, float]:
    names = rounds[0]["phases"]
    return {name: median(sample["phases"].get(name, 0.0) for sample in rounds) for name in names}


def _seconds(sample: dict[str, Any], durable: bool) -> float:
    return float(sample["durable_seconds" if durable else "seconds"])
