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
        explained: whether what one file allows is measured too, which tells why a target in time
            is missed.
    """

    engine: str
    ranks: int
    size: int
    rounds: int
    peers: int
    explained: bool = False

    @property
    def name(self) -> str:
        """As in the tables."""
        size = f"{self.size / GB:g} GB" if self.size >= 10**8 else f"{self.size / MB:g} MB"
        return f"{self.engine}, {self.ranks} x, {size}"


FULL = (
    Cell("single", 1, 8 * MB, 11, 11, explained=True),
    Cell("single", 1, GB // 4, 5, 5, explained=True),
    Cell("single", 1, GB, 3, 3, explained=True),
    Cell("single", 1, 4 * GB, 3, 3, explained=True),
    *(
        Cell(engine, ranks, size, rounds, peers, explained=size == 2 * GB)
        for engine in ("fsdp2", "zero3")
        for ranks, size, rounds, peers in (
            (1, GB // 4, 3, 3),
            (2, GB // 4, 5, 5),
            (4, GB // 4, 3, 3),
            (2, GB, 3, 2),
            (2, 2 * GB, 4, 2),
            (2, 4 * GB, 3, 2),
        )
    ),
    *(Cell(engine, 2, GB // 4, 4, 4) for engine in ("ddp", "fsdp1", "zero2")),
    *(Cell(engine, 2, 8 * MB, 11, 3) for engine in ("ddp", "fsdp2")),
)
"""Everything. The targets are about 2 ranks and 2 GB."""

QUICK = (
    Cell("single", 1, 8 * MB, 3, 3, explained=True),
    *(Cell(engine, 2, 20 * MB, 2, 1) for engine in ("ddp", "fsdp1", "fsdp2", "zero2", "zero3")),
)
"""Enough to see that every contestant works; its numbers mean nothing."""
