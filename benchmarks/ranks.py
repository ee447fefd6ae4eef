"""What the ranks of a world tell each other; a single process is a world of one."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist


def rank() -> int:
    """This process among all."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def barrier() -> None:
    """Await all ranks."""
    if dist.is_initialized():
        dist.barrier()


def gather(value: Any) -> list[Any]:
    """What every rank has, in their order, on every rank."""
    values = [value] * world_size()
    if dist.is_initialized():
        dist.all_gather_object(values, value)
    return values


def rank_0_says(value: bool) -> bool:
    """What rank 0 thinks of something; collective."""
    told: list[Any] = [value]
    if dist.is_initialized():
        dist.broadcast_object_list(told)
    return bool(told[0])
