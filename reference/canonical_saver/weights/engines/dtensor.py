"""Distributed tensors: FSDP2, HSDP, tensor parallelism, and their combinations.

The elements that a rank holds follow from the placements alone. They are found by splitting the
numbers of each dimension as the placements would split the tensor, left to right over the mesh,
which holds for the strided placements of packed tensor-parallel weights as well.
"""

from __future__ import annotations

from functools import lru_cache, partial
from itertools import pairwise, product
from math import prod
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.placement_types import _StridedShard

from canonical_saver.errors import WeightsError
from canonical_saver.weights.engines.replica import Replica, ScatteredReplica
from canonical_saver.weights.engines.spread import without_float8
from canonical_saver.weights.tensors import LocalSlice, ModelTensor
from canonical_saver.weights.uneven_tensors import refuse_wrapper


def model_tensor(tensor: Any) -> ModelTensor:
    """Describe a distributed tensor.

    Raises:
        WeightsError: the placements leave a sum to be done (``Partial``), or the local part only
            stands for others.
    """
    local = without_float8(tensor._local_tensor).detach()
    refuse_wrapper(local)
    shape = tuple(tensor.shape)
    coordinate = tensor.device_mesh.get_coordinate()
    if coordinate is None:
        return ModelTensor(id(tensor), local.dtype, shape, ())
    held = _held(tensor, shape, coordinate)
    if tuple(len(numbers) for numbers in held) != tuple(local.shape):
        raise WeightsError(
            f"expected a local part of shape {tuple(len(numbers) for numbers in held)} of a tensor "
            f"of shape {shape} placed as {tensor.placements}, found {tuple(local.shape)}; make it "
            "again by distribute_tensor"
        )
    slices = tuple(_runs(held, shape, local)) if _writes(tensor, coordinate) else ()
    replica = _replica(tensor, coordinate, local)
    return ModelTensor(id(tensor), local.dtype, shape, slices, replica=replica)


def _held(tensor: Any, shape: tuple[int, ...], coordinate: list[int]) -> list[torch.Tensor]:
    """The numbers held along each dimension."""
    held = [torch.arange(size) for size in shape]
    for dimension, placement in enumerate(tensor.placements):
        if isinstance(placement, Replicate):
            continue
        split_factor = getattr(placement, "split_factor", None)
        if not isinstance(placement, Shard) and split_factor is None:
            raise WeightsError(
                f"expected a sharded or replicated tensor, found one of shape {shape} placed as "
                f"{placement}; redistribute it before saving"
            )
        flat = Shard(0) if split_factor is None else _StridedShard(0, split_factor=split_factor)
        parts = tensor.device_mesh.size(dimension)
        pieces, _ = flat._split_tensor(held[placement.dim], parts, with_padding=False)
        held[placement.dim] = pieces[coordinate[dimension]]
    return held


def _writes(tensor: Any, coordinate: list[int]) -> bool:
    """Whether this rank writes what it holds, and not another one that holds the same.

    A mesh of some ranks only has copies on other meshes, by assumption; the one with rank 0 writes.
    """
    first = all(
        place == 0
        for place, placement in zip(coordinate, tensor.placements, strict=True)
        if isinstance(placement, Replicate)
    )
    return first and _has_rank_0(tensor.device_mesh)


@lru_cache(maxsize=64)
def _has_rank_0(mesh: DeviceMesh) -> bool:
    """Whether rank 0 is in a mesh, whose table of ranks torch computes anew each time."""
    return bool((mesh.mesh == 0).any())


def _replica(tensor: Any, coordinate: list[int], local: torch.Tensor) -> Replica | None:
    mesh = tensor.device_mesh
    replicated = [isinstance(placement, Replicate) for placement in tensor.placements]
    copies = any(mesh.size(d) > 1 for d, is_copy in enumerate(replicated) if is_copy)
    if not copies and mesh.size() == dist.get_world_size():
        return None
    places = ["*" if r else str(c) for c, r in zip(coordinate, replicated, strict=True)]
    part = f"{mesh.mesh_dim_names} {tuple(mesh.shape)} {tensor.placements} {','.join(places)}"
    runs = partial(_all_runs, tensor, coordinate, local)
    return ScatteredReplica(part, LocalSlice(0, local.numel(), local), runs=runs)


def _all_runs(tensor: Any, coordinate: list[int], local: torch.Tensor) -> list[LocalSlice]:
    """The runs of a rank that does not write them; the numbers are not kept for it meanwhile."""
    shape = tuple(tensor.shape)
    return _runs(_held(tensor, shape, coordinate), shape, local)


def _runs(
    held: list[torch.Tensor], shape: tuple[int, ...], local: torch.Tensor
) -> list[LocalSlice]:
    """Turn the numbers held along each dimension into runs of consecutive elements."""
    if local.numel() == 0:
        return []
    split = max((d for d, numbers in enumerate(held) if len(numbers) < shape[d]), default=-1)
    if split < 0:
        return [LocalSlice(0, local.numel(), local)]
    inner = prod(shape[split + 1 :])
    strides = [prod(shape[d + 1 :]) for d in range(split)]
    stretches = _stretches(held[split])
    width = len(held[split]) * inner
    slices: list[LocalSlice] = []
    outer = product(*(numbers.tolist() for numbers in held[:split]))
    for row, coordinates in enumerate(outer):
        base = sum(c * stride for c, stride in zip(coordinates, strides, strict=True))
        for first, position, count in stretches:
            start = base + first * inner
            slices.append(LocalSlice(start, count * inner, local, row * width + position * inner))
    return slices


def _stretches(numbers: torch.Tensor) -> list[tuple[int, int, int]]:
    """Group ascending numbers into (first number, its position, how many follow each other)."""
    after_gaps = (torch.nonzero(numbers.diff() != 1).flatten() + 1).tolist()
    edges = pairwise((0, *after_gaps, len(numbers)))
    return [(int(numbers[start]), start, end - start) for start, end in edges]
