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
from canonical_saver.weights.engines import find_engines
from canonical_saver.weights.tensors import LocalSlice, ModelTensor
from canonical_saver.writing.tiling import prove_tiling
from canonical_saver.writing.write_items import packed, ranges, write_items

Holder = Callable[[ModelTensor, int, int], list[LocalSlice]]
"""The slices of a tensor that one of several ranks holds: tensor, rank, number of ranks."""


def fsdp2(tensor: ModelTensor, rank: int, world_size: int) -> list[LocalSlice]:
    """Rows, as ``fully_shard`` divides them."""
    if tensor.replicated and not tensor.shape:
        return _all_on_first(tensor, rank)
    rows, inner = tensor.shape[0], prod(tensor.shape[1:])
    size, first = Shard.local_shard_size_and_offset(rows, world_size, rank)
    return [LocalSlice(first * inner, size * inner, _nothing(tensor))] if size * inner else []


def zero3(tensor: ModelTensor, rank: int, world_size: int) -> list[LocalSlice]:
    """Equal partitions of the flattened tensor, the last ones short or empty."""
    part = -(-tensor.numel // world_size)
    start = part * rank
    length = min(max(tensor.numel - start, 0), part)
    return [LocalSlice(start, length, _nothing(tensor))] if length else []


HOLDERS: dict[str, Holder] = {"fsdp2": fsdp2, "zero3": zero3}


def lay_out(model: Any) -> list[File]:
    """The files of a model that one process would write."""
    wanted = request.build(model, "plan")
    return formats.find_format(wanted.format).lay_out(
        weights.collect(model, find_engines((model,), 0)), wanted
    )


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
        buffers: identities of the tensors that no engine divides.
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
    everyone = []
    for rank in range(world_size):

        def held(tensor: ModelTensor, rank: int = rank) -> list[LocalSlice]:
            whole = tensor.identity in buffers
            return _all_on_first(tensor, rank) if whole else holder(tensor, rank, world_size)

        everyone.append(packed(ranges(write_items(files, held))))
    return everyone


def buffers_of(model: Any) -> frozenset[int]:
    """Identities of a model's buffers, which every rank holds."""
    return frozenset(id(buffer) for buffer in model.buffers())


def imbalance_of(cell: Cell) -> float:
    """The worst rank's bytes by the mean, for a cell of the bench."""
    model = models.empty(models.config(cell.size))
    found = distribute(lay_out(model), buffers_of(model), HOLDERS[cell.engine], cell.ranks)
    return found.imbalance(cell.ranks)


def _all_on_first(tensor: ModelTensor, rank: int) -> list[LocalSlice]:
    return [LocalSlice(0, tensor.numel, _nothing(tensor))] if rank == 0 else []


def _nothing(tensor: ModelTensor) -> torch.Tensor:
    if tensor.dtype not in _NOTHING:
        _NOTHING[tensor.dtype] = torch.empty(0, dtype=tensor.dtype, device="meta")
    return _NOTHING[tensor.dtype]


_NOTHING: dict[torch.dtype, torch.Tensor] = {}
