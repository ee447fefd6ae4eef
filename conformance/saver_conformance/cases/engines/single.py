"""One process."""

from __future__ import annotations

from typing import Any

from saver_conformance.cases.engine import Engine


def _trains(trainer: Any, wrapped: Any) -> bool:
    from torch.distributed.fsdp import FSDPModule
    from torch.nn.parallel import DistributedDataParallel

    alone = bool(trainer.args.world_size == 1)
    return alone and not isinstance(wrapped, (DistributedDataParallel, FSDPModule))


SINGLE = Engine(
    name="single",
    place=0,
    text="one process, which holds everything",
    world_sizes=(1,),
    pairs=True,
    seconds=0.22,
    keeps_dtypes=True,
    trains=_trains,
)
