"""What is measured: engines, world sizes, sizes, and how often."""

from __future__ import annotations

from dataclasses import dataclass

MB, GB = 10**6, 10**9


@dataclass(frozen=True, order=True)
class Cell:
    """One model on one world; all contestants save it by turns.

    Attributes:
        engine: holds the model.
        ranks: world size.
        size: bytes of the model, about.
        rounds: how often the reference and the limits save it.
        peers: in how many of these rounds the others do, who take many times as long.
    """

    engine: str
    ranks: int
    size: int
    rounds: int
    peers: int

    @property
    def name(self) -> str:
        """As in the tables."""
        size = f"{self.size / GB:g} GB" if self.size >= 10**8 else f"{self.size / MB:g} MB"
        return f"{self.engine}, {self.ranks} x, {size}"


FULL = (
    Cell("single", 1, 8 * MB, 15, 15),
    Cell("single", 1, GB // 4, 7, 7),
    Cell("single", 1, GB, 5, 5),
    Cell("single", 1, 4 * GB, 3, 3),
    *(
        Cell(engine, ranks, size, rounds, peers)
        for engine in ("fsdp2", "zero3")
        for ranks, size, rounds, peers in (
            (1, GB // 4, 5, 5),
            (2, GB // 4, 5, 5),
            (4, GB // 4, 5, 5),
            (2, GB, 5, 2),
            (2, 2 * GB, 5, 2),
            (2, 4 * GB, 2, 2),
        )
    ),
    *(Cell(engine, 2, GB // 4, 5, 5) for engine in ("ddp", "fsdp1", "zero2")),
)
"""Everything. The targets are about 2 ranks and 2 GB."""

QUICK = (
    Cell("single", 1, 8 * MB, 3, 3),
    *(Cell(engine, 2, 20 * MB, 2, 1) for engine in ("ddp", "fsdp1", "fsdp2", "zero2", "zero3")),
)
"""Enough to see that every contestant works; its numbers mean nothing."""
