"""Which bytes each of many simulated ranks would write, by the saver's own planning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch.distributed.tensor import Shard

from benchmarks import models
from benchmarks.cells import Cell
from canonical_saver import formats, request, weights
from canonical_saver.formats.layout import File
from canonical_saver.weights.engines import Engines
from canonical_saver.weights.tensors import Run, Source
from canonical_saver.writing.write_items import Goals, Transfer, packed, prove_tiling, ranges

Holder = Callable[[Source, int, int], list[Run]]
"""The runs of a source that one of several ranks holds: source, rank, number of ranks."""


def fsdp2(source: Source, rank: int, world_size: int) -> list[Run]:
    """Rows, as ``fully_shard`` divides them."""
    if source.replicated and not source.shape:
        return _all_on_first(source, rank)
    rows, inner = source.shape[0], prod(source.shape[1:])
    size, first = Shard.local_shard_size_and_offset(rows, world_size, rank)
    return [Run(first * inner, size * inner, _nothing(source))] if size * inner else []


def zero3(source: Source, rank: int, world_size: int) -> list[Run]:
    """Equal partitions of the flattened tensor, the last ones short or empty."""
    part = -(-source.numel // world_size)
    start = part * rank
    length = min(max(source.numel - start, 0), part)
    return [Run(start, length, _nothing(source))] if length else []


HOLDERS: dict[str, Holder] = {"fsdp2": fsdp2, "zero3": zero3}


def lay_out(model: Any) -> list[File]:
    """The files of a model that one process would write."""
    asked = request.build(model, "plan")
    return formats.lay_out(weights.collect(model, Engines((model,), 0)), asked)


@dataclass(frozen=True)
class Distribution:
    """How the bytes of a save lie on its ranks; the tiling of all files is proven.

    Attributes:
        bytes: of all tensors.
        worst: bytes of the rank that writes most.
        empty: how many ranks write nothing.
        ranges: stretches of files that all ranks write together.
    """

    bytes: int
    worst: int
    empty: int
    ranges: int

    def imbalance(self, world_size: int) -> float:
        """The worst rank's bytes by the mean."""
        return self.worst * world_size / self.bytes


def distribute(
    files: list[File], buffers: frozenset[int], holder: Holder, world_size: int
) -> Distribution:
    """Plan for every rank, and prove that together they write each byte once.

    Args:
        files: the layout.
        buffers: identities of the sources that no engine divides.
        holder: which elements a rank holds.
        world_size: how many ranks.

    Raises:
        VerifyError: a gap or an overlap.
    """
    everyone = planned_ranges(files, buffers, holder, world_size)
    prove_tiling(files, everyone)
    sizes = [int(found[:, 2].sum()) for found in everyone]
    return Distribution(
        sum(sizes), max(sizes), sizes.count(0), sum(len(found) for found in everyone)
    )


def planned_ranges(
    files: list[File], buffers: frozenset[int], holder: Holder, world_size: int
) -> list[torch.Tensor]:
    """What each rank would write, packed."""
    goals = Goals(files)
    everyone = []
    for rank in range(world_size):
        mine: list[Transfer] = []
        for source in goals.sources():
            whole = source.identity in buffers
            runs = _all_on_first(source, rank) if whole else holder(source, rank, world_size)
            mine += goals.of(source, runs)
        mine.sort(key=lambda transfer: (transfer.file, transfer.offset))
        everyone.append(packed(ranges(mine)))
    return everyone


def buffers_of(model: Any) -> frozenset[int]:
    """Identities of a model's buffers, which every rank holds."""
    return frozenset(id(buffer) for buffer in model.buffers())


def imbalance_of(cell: Cell) -> float:
    """The worst rank's bytes by the mean, for a cell of the bench."""
    model = models.empty(models.config(cell.size))
    found = distribute(lay_out(model), buffers_of(model), HOLDERS[cell.engine], cell.ranks)
    return found.imbalance(cell.ranks)


def _all_on_first(source: Source, rank: int) -> list[Run]:
    return [Run(0, source.numel, _nothing(source))] if rank == 0 else []


def _nothing(source: Source) -> torch.Tensor:
    if source.dtype not in _NOTHING:
        _NOTHING[source.dtype] = torch.empty(0, dtype=source.dtype, device="meta")
    return _NOTHING[source.dtype]


_NOTHING: dict[torch.dtype, torch.Tensor] = {}
