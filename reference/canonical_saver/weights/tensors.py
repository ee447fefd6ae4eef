"""A tensor as the ranks hold it: which of its elements lie here, and where.

Elements are counted in row-major order over the logical shape, from 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from canonical_saver.weights.engines.replica import Replica

PIECE = 8 * 2**20
"""Bytes carried at a time; a rank's extra memory is a few of these."""


@dataclass(frozen=True, eq=False)
class LocalSlice:
    """Consecutive elements of a logical tensor that this rank holds.

    Attributes:
        start: the first element's number in the logical tensor.
        length: how many elements.
        data: local tensor of any shape that holds them, consecutive in row-major order.
        offset: the first element's number in ``data``.
        load: reads that tensor when it is needed, if ``data`` only has its shape and dtype.
    """

    start: int
    length: int
    data: torch.Tensor
    offset: int = 0
    load: Callable[[], torch.Tensor] | None = None


@dataclass(frozen=True, eq=False)
class ModelTensor:
    """A tensor of the model, spread over the ranks or held whole by each.

    Attributes:
        identity: equal for two names of one tensor, and only for them.
        dtype: dtype of the stored elements.
        shape: logical shape.
        slices: what this rank is to write; the slices of all ranks tile the tensor exactly.
        replicated: every rank holds the whole tensor. Rank 0 writes it: replicas are equal only
            until something drifts, and a file must never be put together from two of them.
        needs: where the tensor is yet to be computed, the names of its model tensors; no rank has
            slices of it then.
        replica: what this rank holds of it and others are said to hold too; None if none is.
    """

    identity: object
    dtype: torch.dtype
    shape: tuple[int, ...]
    slices: tuple[LocalSlice, ...]
    replicated: bool = False
    needs: frozenset[str] = frozenset()
    replica: Replica | None = None

    @property
    def numel(self) -> int:
        """Number of elements of the logical tensor."""
        return prod(self.shape)


def has_own_storage(tensor: torch.Tensor) -> bool:
    """Whether a tensor's elements are in its storage, as those of a wrapper subclass are not."""
    return type(tensor).__torch_dispatch__ is torch.Tensor.__torch_dispatch__


def whole(tensor: torch.Tensor, identity: object = None) -> ModelTensor:
    """Describe a tensor that every rank holds complete.

    Raises:
        WeightsError: the tensor only stands for others, or has no elements in memory one by one.
    """
    dense = tensor.layout is torch.strided and not torch.nn.parameter.is_lazy(tensor)
    if not dense or not has_own_storage(tensor):
        from canonical_saver.weights.uneven_tensors import refusal

        raise refusal(tensor)
    plain = tensor.detach().as_subclass(torch.Tensor)
    key = id(tensor) if identity is None else identity
    local_slice = LocalSlice(0, plain.numel(), plain)
    return ModelTensor(key, plain.dtype, tuple(plain.shape), (local_slice,), replicated=True)


def elements(
    local_slice: LocalSlice, start: int, length: int, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """Copy or view some elements of a slice as bytes, where they are.

    Args:
        local_slice: the slice.
        start: first element, counted from the slice's own first.
        length: how many elements; the memory needed is proportional to it.
        dtype: cast floating-point elements to this dtype, if given.

    Returns:
        A contiguous tensor of uint8 on the slice's device, shape ``[length * itemsize]``.
    """
    first = local_slice.offset + start
    data = local_slice.data if local_slice.load is None else local_slice.load()
    if data.is_contiguous():
        piece = data.view(-1)[first : first + length]
    else:
        from canonical_saver.weights.uneven_tensors import flat

        piece = flat(data, first, first + length)
    if dtype is not None and piece.dtype.is_floating_point:
        piece = piece.to(dtype)
    # Views of complex numbers may only be marked as conjugates or negatives of what is in memory.
    piece = piece.resolve_conj().resolve_neg()
    if local_slice.load is not None:
        piece = piece.clone()  # a view would keep all that was read in memory
    return piece.contiguous().view(torch.uint8)
