"""Slices of a tensor that no training makes: zeros, and a rank's slice written twice.

Ranks hold equal parts of the rows (FSDP2, ZeRO-3, tensor parallelism by columns) or of the columns
(tensor parallelism by rows). The beginnings of all slices are looked at for many numbers of ranks;
only where these speak for it a slice is read whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from saver_conformance.comparison.stored import BLOCK_BYTES, StoredTensor, TensorBytes
from saver_conformance.folder.safetensors import DTYPE_BITS

_WORLDS = (*range(2, 17), 24, 32, 48, 64, 96, 128, 256, 512, 1024)
_PROBE_BYTES = 4096
_LEAST_ELEMENTS = 64
"""Smaller slices can be equal by chance."""
_LEAST_ROWS = 4
_LEAST_VALUES = 8
"""Different elements that a slice has at least; norms and biases often repeat a few values."""


@dataclass(frozen=True, slots=True)
class LostSlice:
    """A slice that holds zeros, or what another slice holds.

    Attributes:
        world: number of slices.
        rank: the slice, counted from 0.
        same_as: the slice that it repeats; None for zeros.
        dimension: 0 for slices of rows, 1 for slices of columns.
    """

    world: int
    rank: int
    same_as: int | None
    dimension: int

    def __str__(self) -> str:
        if self.world == 1:
            return "all zero"
        of = "rows" if self.dimension == 0 else "columns"
        where = f"the slice of rank {self.rank} of {self.world} ({of})"
        if self.same_as is None:
            return f"{where} is all zero"
        return f"{where} repeats that of rank {self.same_as}"


def find_lost_slice(tensor: StoredTensor, base: StoredTensor) -> LostSlice | None:
    """The first slice of ``tensor`` that is lost, and is not so in ``base``, of the same shape.

    Raises:
        UnreadableTensorError: a file cannot be read any more.
    """
    if base.shape != tensor.shape or not _is_large(tensor) or not _is_large(base):
        return None
    with TensorBytes(tensor) as data, TensorBytes(base) as old:
        if _is_zero(data, 0, tensor.nbytes):
            return None if _is_zero(old, 0, base.nbytes) else LostSlice(1, 0, None, 0)
        search = _Search(tensor, data, base, old, least_rows=_LEAST_ROWS)
        return next(search.by_rows(), None) or next(search.by_columns(), None)


def find_repeated_slice(factor: StoredTensor) -> LostSlice | None:
    """The first slice of a LoRA factor that repeats another one; the base has nothing like it.

    Raises:
        UnreadableTensorError: a file cannot be read any more.
    """
    if not _is_large(factor):
        return None
    with TensorBytes(factor) as data:
        if _is_zero(data, 0, factor.nbytes):
            return None
        search = _Search(factor, data, None, None, least_rows=2)
        return next(search.by_rows(), None) or next(search.by_columns(), None)


def _is_large(tensor: StoredTensor) -> bool:
    return DTYPE_BITS[tensor.dtype] % 8 == 0 and tensor.numel >= _LEAST_ELEMENTS


class _Search:
    def __init__(
        self,
        tensor: StoredTensor,
        data: TensorBytes,
        base: StoredTensor | None,
        old: TensorBytes | None,
        *,
        least_rows: int,
    ) -> None:
        self._tensor, self._data, self._base, self._old = tensor, data, base, old
        # A row or two can be copies on purpose: of a word's embedding, of an expert.
        self._least_rows = least_rows if len(tensor.shape) > 1 else _LEAST_ELEMENTS
        self._item = DTYPE_BITS[tensor.dtype] // 8

    def by_rows(self) -> Iterator[LostSlice]:
        rows = self._tensor.shape[0] if self._tensor.shape else 1
        row = self._tensor.numel // rows
        for world in _WORLDS:
            chunk = math.ceil(rows / world) * row
            if chunk < _LEAST_ELEMENTS or chunk < self._least_rows * row:
                continue
            starts = range(0, self._tensor.numel - chunk + 1, chunk)
            yield from self._lost(world, 0, [(start, chunk) for start in starts], 1, 0)

    def by_columns(self) -> Iterator[LostSlice]:
        if len(self._tensor.shape) < 2:
            return
        columns = self._tensor.shape[-1]
        rows = self._tensor.numel // columns
        for world in _WORLDS:
            if columns % world or columns // world * rows < _LEAST_ELEMENTS:
                continue
            chunk = columns // world
            if chunk < _LEAST_VALUES:
                continue
            starts = range(0, columns, chunk)
            yield from self._lost(world, 1, [(start, chunk) for start in starts], rows, columns)

    def _lost(
        self, world: int, dimension: int, slices: list[tuple[int, int]], rows: int, pitch: int
    ) -> Iterator[LostSlice]:
        seen: dict[bytes, int] = {}
        for rank, (start, size) in enumerate(slices):
            begin = start * self._item
            probe = self._data.read(begin, begin + min(size * self._item, _PROBE_BYTES))
            if not any(probe):
                if self._is_lost(start, None, size, rows, pitch):
                    yield LostSlice(world, rank, None, dimension)
                continue
            same = seen.setdefault(probe, rank)
            if same == rank or not _is_rich(probe, self._item):
                continue
            if self._is_lost(start, slices[same][0], size, rows, pitch):
                yield LostSlice(world, rank, same, dimension)

    def _is_lost(self, start: int, other: int | None, size: int, rows: int, pitch: int) -> bool:
        """Whether a slice is zero, or equals another one; and the base's is not."""
        if not self._is_same(self._data, self._item, start, other, size, rows, pitch):
            return False
        if self._base is None or self._old is None:
            return other is not None
        item = DTYPE_BITS[self._base.dtype] // 8
        return not self._is_same(self._old, item, start, other, size, rows, pitch)

    @staticmethod
    def _is_same(
        data: TensorBytes,
        item: int,
        start: int,
        other: int | None,
        size: int,
        rows: int,
        pitch: int,
    ) -> bool:
        for row in range(rows):
            begin = (start + row * pitch) * item
            if other is None:
                if not _is_zero(data, begin, begin + size * item):
                    return False
                continue
            twin = (other + row * pitch) * item
            for at in range(0, size * item, BLOCK_BYTES):
                end = min(at + BLOCK_BYTES, size * item)
                if data.read(begin + at, begin + end) != data.read(twin + at, twin + end):
                    return False
        return True


def _is_zero(data: TensorBytes, begin: int, end: int) -> bool:
    # Most slices end the question with their first bytes.
    if any(data.read(begin, min(begin + _PROBE_BYTES, end))):
        return False
    return not any(
        any(data.read(at, min(at + BLOCK_BYTES, end))) for at in range(begin, end, BLOCK_BYTES)
    )


def _is_rich(probe: bytes, item: int) -> bool:
    return len({probe[at : at + item] for at in range(0, len(probe), item)}) >= _LEAST_VALUES
