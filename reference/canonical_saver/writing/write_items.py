"""Which rank writes which bytes of which file, and the proof that nothing is missed.

All of it grows linearly with the tensors and with what this rank holds, so that models of a hundred
thousand tensors on a thousand ranks are planned in seconds.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from operator import attrgetter

import torch

from canonical_saver.file_io import MOST_PARTS
from canonical_saver.formats.layout import File, PlacedTensor
from canonical_saver.weights.saved_tensors import SourceRange
from canonical_saver.weights.tensors import PIECE, LocalSlice, ModelTensor

Part = tuple[LocalSlice, int, int, torch.dtype | None]
"""Elements of a slice: the slice, the first of them, how many, and a dtype to cast them to."""

Range = tuple[int, int, int]
"""Number of the file, first byte in it, how many bytes."""


@dataclass(frozen=True, slots=True)
class WriteItem:
    """Bytes that this rank writes.

    Attributes:
        file: number of the file.
        offset: first byte in the file.
        local_slice: the elements.
        dtype: their dtype in the file.
    """

    file: int
    offset: int
    local_slice: LocalSlice
    dtype: torch.dtype

    @property
    def size(self) -> int:
        """How many bytes."""
        return self.local_slice.length * self.dtype.itemsize


@dataclass(slots=True)
class WriteBatch:
    """Bytes that are written at once.

    Attributes:
        file: number of the file.
        offset: first byte in the file.
        size: how many bytes.
        parts: whose elements, one behind the other, they are; all on one device.
    """

    file: int
    offset: int
    size: int
    parts: list[Part]


def write_items(
    files: Sequence[File],
    held: Callable[[ModelTensor], Iterable[LocalSlice]] = attrgetter("slices"),
) -> list[WriteItem]:
    """Find all that a rank is to write, in order of files and offsets.

    Args:
        files: the layout.
        held: the slices of a tensor that the rank is to write; by default those of this one.
    """

    @cache
    def in_order(model_tensor: ModelTensor) -> list[LocalSlice]:
        return sorted(held(model_tensor), key=attrgetter("start"))

    found: list[WriteItem] = []
    for number, file in enumerate(files):
        for placed in file.tensors:
            for source in placed.saved.source_ranges or ():
                found += _of_range(number, placed, source, in_order(source.model_tensor))
    found.sort(key=lambda item: (item.file, item.offset))
    return found


def _of_range(
    file: int, placed: PlacedTensor, source: SourceRange, slices: Sequence[LocalSlice]
) -> Iterator[WriteItem]:
    """What slices of a model tensor, in order, have of a range of it, and where that goes."""
    size = placed.dtype.itemsize
    base = placed.offset + (source.start - source.offset) * size
    last = source.offset + source.length
    for number in range(bisect_right(slices, source.offset, key=_stop), len(slices)):
        one = slices[number]
        start, stop = max(source.offset, one.start), min(last, _stop(one))
        if start >= last:
            return
        if start < stop:
            first = one.offset + start - one.start
            part = LocalSlice(start, stop - start, one.data, first, one.load)
            yield WriteItem(file, base + start * size, part, placed.dtype)


def _stop(local_slice: LocalSlice) -> int:
    return local_slice.start + local_slice.length


def batches(planned: Sequence[WriteItem]) -> Iterator[WriteBatch]:
    """Cut and join write items into batches of at most ``PIECE`` bytes.

    Small tensors that are neighbours in the file make one batch: a system call, or a message to
    another rank, for each would take longer than the bytes.
    """
    current: WriteBatch | None = None
    used = 0
    for item in planned:
        local_slice, dtype = item.local_slice, item.dtype
        cast = dtype if local_slice.data.dtype != dtype else None
        widest = max(dtype.itemsize, local_slice.data.dtype.itemsize)
        start = 0
        while start < local_slice.length:
            offset = item.offset + start * dtype.itemsize
            if current is None or not (
                (current.file, current.offset + current.size) == (item.file, offset)
                and current.parts[0][0].data.device == local_slice.data.device
                and len(current.parts) < MOST_PARTS
                and used + widest <= PIECE
            ):
                if current is not None:
                    yield current
                current, used = WriteBatch(item.file, offset, 0, []), 0
            length = min((PIECE - used) // widest, local_slice.length - start)
            current.parts.append((local_slice, start, length, cast))
            current.size += length * dtype.itemsize
            used += length * widest
            start += length
    if current is not None:
        yield current


def ranges(planned: Sequence[WriteItem]) -> list[Range]:
    """Say which bytes will be written, in order, neighbours joined."""
    joined: list[Range] = []
    for item in planned:
        file, offset, size = item.file, item.offset, item.size
        if joined and joined[-1][0] == file and joined[-1][1] + joined[-1][2] == offset:
            joined[-1] = (file, joined[-1][1], joined[-1][2] + size)
        elif size:
            joined.append((file, offset, size))
    return joined


def packed(found: Sequence[Range]) -> torch.Tensor:
    """Ranges in the form in which ranks exchange them: int64 of shape ``[ranges, 3]``."""
    return torch.tensor(found, dtype=torch.int64).reshape(-1, 3)
