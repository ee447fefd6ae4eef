"""How far apart two copies of a tensor are, by samples of them."""

from __future__ import annotations

import torch

from canonical_saver.weights.tensors import LocalSlice

CLOSE = torch.finfo(torch.bfloat16).eps
"""Relative distance of copies of which every element was rounded to a neighbour in bfloat16."""

SAMPLES = 1024
"""Elements that are compared, spread evenly over the tensor."""

STRETCH = 64
"""Samples whose distance is taken together: one foreign value among them is far from close."""


def sample(local_slice: LocalSlice) -> torch.Tensor | None:
    """Copy some elements to main memory.

    Returns:
        Floating-point numbers of shape ``[SAMPLES]`` or fewer; None for elements that are no such
        numbers, of which none is close to another.
    """
    if not (local_slice.data.is_floating_point() or local_slice.data.is_complex()):
        return None
    count = min(local_slice.length, SAMPLES)
    places = local_slice.offset + torch.arange(count) * local_slice.length // max(count, 1)
    data = local_slice.data if local_slice.load is None else local_slice.load()
    places = places.to(data.device)
    if data.is_contiguous():
        values = data.view(-1)[places]
    else:
        values = data[torch.unravel_index(places, data.shape)]
    if values.is_complex():
        values = torch.view_as_real(values).flatten()
    return values.to(torch.promote_types(values.dtype, torch.float32)).cpu()


def distance(one: torch.Tensor | None, other: torch.Tensor | None) -> float:
    """The norm of the difference, relative to the larger norm, in the range where it is largest.

    Args:
        one: a sample.
        other: a sample of as many elements.

    Returns:
        0 for equal samples (a NaN equals a NaN), infinity where numbers cannot tell.
    """
    if one is None or other is None:
        return float("inf")
    farthest = 0.0
    pieces = max(len(one) // STRETCH, 1)
    for mine, theirs in zip(one.tensor_split(pieces), other.tensor_split(pieces), strict=True):
        farthest = max(farthest, _distance(mine.double(), theirs.double()))
    return farthest


def _distance(one: torch.Tensor, other: torch.Tensor) -> float:
    same = (one == other) | (one.isnan() & other.isnan())
    if bool(same.all()):
        return 0.0
    difference = (one - other).masked_fill(same, 0)
    if not bool(difference.isfinite().all()):
        return float("inf")
    norms = [float(values.nan_to_num(0, 0, 0).norm()) for values in (one, other)]
    return float(difference.norm()) / max(norms)
