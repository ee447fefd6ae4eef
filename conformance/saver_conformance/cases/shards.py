"""A plan in several parts, for machines that each run one; and what a plan is called by."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Self

from saver_conformance.cases.case import Case, Probe, WorldKey

PROBE_SECONDS: Mapping[Probe, float] = {
    "none": 0.0,
    "control_run": 0.5,
    "file_trace": 0.5,
    "fault_injection": 4.0,
    "checkpoints": 8.0,
    "memory": 6.0,
}
"""What a probe adds."""
START_SECONDS = 6.0
"""Until new ranks have imported what they need, and the harness is proven on them."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One part of a plan.

    Attributes:
        number: which one, from 1.
        of: how many there are.
    """

    number: int
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise ValueError(f"there is no shard {self.number} of {self.of}")

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The shard of a text such as ``2/8``.

        Raises:
            ValueError: it names none.
        """
        number, slash, of = text.partition("/")
        if not (slash and number.isdecimal() and of.isdecimal()):
            raise ValueError(f"expected a shard such as 2/8, found {text!r}")
        return cls(int(number), int(of))


def split(planned: Sequence[Case], parts: int) -> tuple[tuple[Case, ...], ...]:
    """``planned`` in consecutive parts that take about as long, none of them empty.

    Parts are consecutive so that each starts as few worlds as it can; the costs are estimates, so
    that every machine computes the same parts.

    Args:
        planned: the cases, in the order of the run.
        parts: number of parts.

    Raises:
        ValueError: there are fewer cases than parts.
    """
    if parts > len(planned):
        raise ValueError(
            f"{parts} shards of {len(planned)} planned cases: expected at most one shard a case"
        )
    ends = tuple(accumulate(_costs(planned)))
    found, begin = [], 0
    for left in range(parts, 0, -1):
        done = ends[begin - 1] if begin else 0.0
        share = done + (ends[-1] - done) / left
        last = len(planned) - left + 1  # the others need a case each
        end = min(range(begin + 1, last + 1), key=lambda at: abs(ends[at - 1] - share))
        end = end if left > 1 else len(planned)
        found.append(tuple(planned[begin:end]))
        begin = end
    return tuple(found)


def estimate(planned: Sequence[Case]) -> float:
    """Seconds that a run of ``planned`` takes on two cores that do nothing else."""
    return sum(_costs(planned))


def case_set(planned: Iterable[Case]) -> str:
    """A name for a set of cases, equal for equal sets in whatever order: 16 hexadecimal digits."""
    lines = sorted(case.to_json() for case in planned)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _costs(planned: Sequence[Case]) -> list[float]:
    """Seconds of each case, estimated, with the start of the world that it is the first to need."""
    costs, world = [], None
    for case in planned:
        key = WorldKey.of(case.mode, case.world_size, case.nodes)
        start = START_SECONDS if key != world else 0.0
        saves = sum(save.mode.definition.seconds for save in case.saves())
        costs.append(start + saves * max(1, case.world_size / 2) + PROBE_SECONDS[case.probe])
        world = key
    return costs
