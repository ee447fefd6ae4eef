"""torch's DistributedDataParallel."""

from __future__ import annotations

from typing import Any

from saver_conformance.cases.engine import Engine


def _trains(trainer: Any, wrapped: Any) -> bool:
    from torch.nn.parallel import DistributedDataParallel

    return isinstance(wrapped, DistributedDataParallel)


DDP = Engine(
    name="ddp",
    place=10,
    text="torch's DistributedDataParallel; every rank holds everything",
    pairs=True,
    seconds=0.34,
    keeps_dtypes=True,
    trains=_trains,
)
