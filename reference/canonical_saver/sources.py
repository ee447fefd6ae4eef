"""A tensor as the ranks hold it: which of its elements lie here, and where.

Elements are counted in row-major order over the logical shape, from 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch


@dataclass(frozen=True, eq=False)
class Run:
    """Consecutive elements of a logical tensor that this rank holds.

    Attributes:
        start: the first element's number in the logical tensor.
        length: how many elements.
        data: local tensor of any shape that holds them, consecutive in row-major order.
        offset: the first element's number in ``data``.
    """

    start: int
    length: int
    data: torch.Tensor
    offset: int = 0


@dataclass(frozen=True, eq=False)
class Source:
    """A tensor of the model, spread over the ranks or held whole by each.

    Attributes:
        identity: equal for two names of one tensor, and only for them.
        dtype: dtype of the stored elements.
        shape: logical shape.
        runs: what this rank is to write; the runs of all ranks tile the tensor exactly.
        replicated: every rank holds the whole tensor. Rank 0 writes it: replicas are equal only
            until something drifts, and a file must never be put together from two of them.
    """

    identity: object
    dtype: torch.dtype
    shape: tuple[int, ...]
    runs: tuple[Run, ...]
    replicated: bool = False

    @property
    def numel(self) -> int:
        """Number of elements of the logical tensor."""
        return prod(self.shape)


def whole(tensor: torch.Tensor, identity: object = None) -> Source:
    """Describe a tensor that every rank holds complete."""
    plain = tensor.detach().as_subclass(torch.Tensor)
    key = id(tensor) if identity is None else identity
    run = Run(0, plain.numel(), plain)
    return Source(key, plain.dtype, tuple(plain.shape), (run,), replicated=True)


def elements(run: Run, start: int, length: int, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Copy or view some elements of a run as bytes, where they are.

    Args:
        run: the run.
        start: first element, counted from the run's own first.
        length: how many elements; the memory needed is proportional to it.
        dtype: cast floating-point elements to this dtype, if given.

    Returns:
        A contiguous tensor of uint8 on the run's device, shape ``[length * itemsize]``.
    """
    first = run.offset + start
    if run.data.is_contiguous():
        piece = run.data.view(-1)[first : first + length]
    else:
        # reshape would copy the whole tensor; the coordinates of the piece alone are enough.
        numbers = torch.arange(first, first + length, device=run.data.device)
        piece = run.data[torch.unravel_index(numbers, run.data.shape)]
    if dtype is not None and piece.dtype.is_floating_point:
        piece = piece.to(dtype)
    return piece.contiguous().view(torch.uint8)


def read(run: Run, start: int, length: int, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Copy or view some elements of a run as bytes in main memory, see :func:`elements`."""
    return elements(run, start, length, dtype).to("cpu")
