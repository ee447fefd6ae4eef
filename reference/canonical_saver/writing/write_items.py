"""Which rank writes which bytes of which file, and the proof that nothing is missed.

All of it grows linearly with the tensors and with what this rank holds, so that models of a hundred
thousand tensors on a thousand ranks are planned in seconds.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch

from canonical_saver.file_io import MOST_PARTS
from canonical_saver.formats.layout import File
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


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class _Destination:
    """Where elements ``[start, stop)`` of a tensor go."""

    start: int
    stop: int
    file: int
    offset: int
    dtype: torch.dtype


class Destinations:
    """Where the elements of each tensor go in the files.

    Args:
        files: the layout.
    """

    def __init__(self, files: Sequence[File]) -> None:
        self._of: dict[int, tuple[ModelTensor, list[_Destination]]] = {}
        for number, file in enumerate(files):
            for placed in file.tensors:
                for source_range in placed.saved.source_ranges or ():
                    offset = placed.offset + source_range.start * placed.dtype.itemsize
                    stop = source_range.offset + source_range.length
                    destination = _Destination(
                        source_range.offset, stop, number, offset, placed.dtype
                    )
                    self._of.setdefault(
                        id(source_range.model_tensor), (source_range.model_tensor, [])
                    )[1].append(destination)
        self._reach: dict[int, list[int]] = {}
        for key, (_, destinations) in self._of.items():
            destinations.sort(key=lambda destination: destination.start)
            # How far any destination up to here reaches: a tensor may be saved under two names.
            self._reach[key] = list(
                accumulate((destination.stop for destination in destinations), max)
            )

    def tensors(self) -> list[ModelTensor]:
        """All tensors that are written somewhere."""
        return [model_tensor for model_tensor, _ in self._of.values()]

    def items(self, model_tensor: ModelTensor, slices: Iterable[LocalSlice]) -> Iterator[WriteItem]:
        """Yield what it means to write some slices of a tensor."""
        _, destinations = self._of[id(model_tensor)]
        reach = self._reach[id(model_tensor)]
        for local_slice in slices:
            end = local_slice.start + local_slice.length
            for number in range(bisect_right(reach, local_slice.start), len(destinations)):
                destination = destinations[number]
                if destination.start >= end:
                    break
                start, stop = max(destination.start, local_slice.start), min(destination.stop, end)
                if start < stop:
                    first = local_slice.offset + start - local_slice.start
                    part = LocalSlice(
                        start, stop - start, local_slice.data, first, local_slice.load
                    )
                    offset = (
                        destination.offset
                        + (start - destination.start) * destination.dtype.itemsize
                    )
                    yield WriteItem(destination.file, offset, part, destination.dtype)


def write_items(files: Sequence[File]) -> list[WriteItem]:
    """Find all that this rank is to write, in order of files and offsets.

    Args:
        files: the layout.
    """
    destinations = Destinations(files)
    found = [
        t
        for model_tensor in destinations.tensors()
        for t in destinations.items(model_tensor, model_tensor.slices)
    ]
    found.sort(key=lambda item: (item.file, item.offset))
    return found


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
        start, offset = 0, item.offset
        while start < local_slice.length:
            fits = current is not None and (
                (current.file, current.offset + current.size) == (item.file, offset)
                and current.parts[0][0].data.device == local_slice.data.device
                and len(current.parts) < MOST_PARTS
                and used + widest <= PIECE
            )
            if current is None or not fits:
                if current is not None:
                    yield current
                current, used = WriteBatch(item.file, offset, 0, []), 0
            length = min((PIECE - used) // widest, local_slice.length - start)
            current.parts.append((local_slice, start, length, cast))
            size = length * dtype.itemsize
            current = WriteBatch(current.file, current.offset, current.size + size, current.parts)
            used += length * widest
            start, offset = start + length, offset + size
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
