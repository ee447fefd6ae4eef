"""Each rank writes what it holds to its final place.

Pieces are bounded, so a rank needs no second copy of anything. Where a rank does not see the output
folder, its pieces travel to rank 0, one at a time. Only tensors that must be computed are gathered,
one group at a time, by turns on different ranks.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from canonical_saver import conversion
from canonical_saver.errors import VerifyError, WriteError
from canonical_saver.layout import File, Placed
from canonical_saver.ranks import Ranks
from canonical_saver.sources import Run, Source, cut, read, whole

PIECE = 8 * 2**20
"""Bytes copied at a time; a rank's extra memory is a few of these."""

Range = tuple[int, int, int]
"""Number of the file, first byte in it, how many bytes."""
Progress = Callable[[int], None]
"""Called with the number of bytes just written."""


@dataclass(frozen=True)
class Transfer:
    """Bytes that this rank writes.

    Attributes:
        file: number of the file.
        offset: first byte in the file.
        run: the elements.
        dtype: their dtype in the file.
    """

    file: int
    offset: int
    run: Run
    dtype: torch.dtype

    @property
    def size(self) -> int:
        """How many bytes."""
        return self.run.length * self.dtype.itemsize

    def pieces(self) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield file offsets and the bytes to put there, at most ``PIECE`` at a time."""
        cast = self.dtype if self.run.data.dtype != self.dtype else None
        step = PIECE // max(self.dtype.itemsize, self.run.data.dtype.itemsize)
        for start in range(0, self.run.length, step):
            length = min(step, self.run.length - start)
            yield self.offset + start * self.dtype.itemsize, read(self.run, start, length, cast)


def transfers(files: Sequence[File]) -> list[Transfer]:
    """Find the places in the files of all that this rank is to write.

    Args:
        files: the layout.
    """
    found = []
    for number, file in enumerate(files):
        for placed in file.tensors:
            for span in placed.entry.spans or ():
                for run in cut(span.source.runs, span.offset, span.offset + span.length):
                    element = span.start + run.start - span.offset
                    offset = placed.offset + element * placed.dtype.itemsize
                    found.append(Transfer(number, offset, run, placed.dtype))
    return found


def ranges(planned: Sequence[Transfer]) -> list[Range]:
    """Say which bytes will be written, in order, neighbours joined."""
    joined: list[Range] = []
    for file, offset, size in sorted((t.file, t.offset, t.size) for t in planned):
        if joined and joined[-1][0] == file and sum(joined[-1][1:]) == offset:
            joined[-1] = (file, joined[-1][1], joined[-1][2] + size)
        else:
            joined.append((file, offset, size))
    return joined


def prove_tiling(files: Sequence[File], everyone: Sequence[Sequence[Range]]) -> None:
    """Prove that the ranks together write each byte of each tensor exactly once.

    Raises:
        VerifyError: a gap or an overlap; names file and byte.
    """
    planned = sorted(r for ranges_of_rank in everyone for r in ranges_of_rank if r[2])
    planned += [
        (number, placed.offset, placed.size)
        for number, file in enumerate(files)
        for placed in file.tensors
        if placed.entry.spans is None and placed.size
    ]
    planned.sort()
    cursor = 0
    for number, file in enumerate(files):
        for placed in file.tensors:
            position, end = placed.offset, placed.offset + placed.size
            while position < end:
                file_of, offset, size = planned[cursor] if cursor < len(planned) else (-1, -1, 0)
                if file_of != number or offset != position:
                    what = "an overlap" if file_of == number and offset < position else "a gap"
                    raise VerifyError(
                        f"{what} at byte {position} of {file.name}, in tensor "
                        f"'{placed.entry.name}' {placed.entry.shape}: the ranks' parts of it do "
                        "not make one whole"
                    )
                taken = min(size, end - position)
                position += taken
                if taken == size:
                    cursor += 1
                else:
                    planned[cursor] = (number, offset + taken, size - taken)
    if cursor != len(planned):
        raise VerifyError(f"bytes outside of every tensor would be written: {planned[cursor]}")


class Writer:
    """Writes into staged files.

    Args:
        folder: the staging folder.
        files: the layout.
        sees: for each rank, whether it sees the folder.
        ranks: the ranks of the save.
        full: whether to read back and compare everything.
        progress: told of the bytes written.
    """

    def __init__(
        self,
        folder: Path,
        files: Sequence[File],
        sees: Sequence[bool],
        ranks: Ranks,
        full: bool,
        progress: Progress | None = None,
    ) -> None:
        self._folder, self._files, self._sees, self._ranks = folder, files, sees, ranks
        self._full, self._progress = full, progress

    def create(self) -> None:
        """Make each file at its final size, with its header; for rank 0."""
        for file in self._files:
            if not file.header:
                continue
            path = self._folder / file.name
            path.parent.mkdir(exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            handle = os.open(path, flags, 0o666)
            try:
                os.truncate(handle, file.size)
                _put(handle, memoryview(file.header), 0)
            finally:
                os.close(handle)

    def write(self, planned: Sequence[Transfer]) -> None:
        """Write this rank's own parts, if it sees the folder."""
        if not self._sees[self._ranks.rank]:
            return
        with _Open(self._folder, self._files) as handles:
            for transfer in planned:
                for offset, piece in transfer.pieces():
                    self._write_piece(handles[transfer.file], transfer.file, offset, piece)

    def stream(
        self, planned: Sequence[Transfer], everyone: Sequence[Sequence[tuple[int, int, int]]]
    ) -> None:
        """Carry the parts of ranks without the folder to rank 0, which writes them.

        Args:
            planned: this rank's parts.
            everyone: for each such rank, the (file, offset, size) of each of its pieces in order.
        """
        rank = self._ranks.rank
        if not self._sees[rank]:
            self._ranks.send((piece for t in planned for _, piece in t.pieces()), 0)
        if rank != 0:
            return
        failure: OSError | VerifyError | WriteError | None = None
        with _Open(self._folder, self._files) as handles:
            for sender, sees in enumerate(self._sees):
                places = () if sees else everyone[sender]
                received = self._ranks.receive((size for *_, size in places), sender)
                for (file, offset, _), piece in zip(places, received, strict=False):
                    if failure is not None:
                        continue  # the sender cannot know, so it is heard to its end
                    try:
                        self._write_piece(handles[file], file, offset, piece)
                        if self._full:
                            self._compare_piece(handles[file], file, offset, piece)
                    except (OSError, VerifyError, WriteError) as error:
                        failure = error
        if failure is not None:
            raise failure

    def compute(
        self, turn: int, model: Any, memory: dict[str, Source], group: Sequence[tuple[int, Placed]]
    ) -> None:
        """Gather one group of sources on one rank, convert them there and write the result.

        Args:
            turn: number of the group, which chooses the rank.
            model: the unwrapped model.
            memory: its sources by their names in memory.
            group: file numbers and places of the tensors that are computed together.
        """
        ranks = self._ranks
        seeing = [rank for rank, sees in enumerate(self._sees) if sees]
        chosen = seeing[turn % len(seeing)]
        needed = {n for _, placed in group for n in placed.entry.needs}
        names = [name for name in memory if name in needed]
        mine = [(name, run) for name in names for run in memory[name].runs]
        everyone = ranks.gather([(name, run.start, run.length) for name, run in mine])
        gathered: dict[str, torch.Tensor] = {}
        if ranks.rank == chosen:
            for name in names:
                source = memory[name]
                gathered[name] = torch.empty(source.numel, dtype=source.dtype)
        for sender, held in enumerate(everyone):
            parts = [
                (name, start + first, first, min(step, length - first), number)
                for number, (name, start, length) in enumerate(held)
                for step in (PIECE // memory[name].dtype.itemsize,)
                for first in range(0, length, step)
            ]
            pieces: Iterable[torch.Tensor] = ()
            if sender == ranks.rank:
                pieces = (read(mine[n][1], first, count) for _, _, first, count, n in parts)
            if sender == ranks.rank != chosen:
                ranks.send(pieces, chosen)
            if ranks.rank != chosen:
                continue
            if sender != chosen:
                sizes = (count * memory[name].dtype.itemsize for name, _, _, count, _ in parts)
                pieces = ranks.receive(sizes, sender)
            for (name, start, _, count, _), piece in zip(parts, pieces, strict=False):
                gathered[name][start : start + count] = piece.view(memory[name].dtype)
        if ranks.rank != chosen:
            return
        shaped = {name: gathered.pop(name).view(memory[name].shape) for name in names}
        converted = conversion.compute(model, shaped)
        with _Open(self._folder, self._files) as handles:
            for file, placed in group:
                tensor = converted.pop(placed.entry.name).contiguous()
                run = whole(tensor).runs[0]
                for offset, piece in Transfer(file, placed.offset, run, placed.dtype).pieces():
                    self._write_piece(handles[file], file, offset, piece)
                    if self._full:
                        self._compare_piece(handles[file], file, offset, piece)

    def compare(self, planned: Sequence[Transfer]) -> None:
        """Read this rank's own parts back and compare their bits, if that was asked for."""
        if not self._full or not self._sees[self._ranks.rank]:
            return
        with _Open(self._folder, self._files, os.O_RDONLY) as handles:
            for transfer in planned:
                for offset, piece in transfer.pieces():
                    self._compare_piece(handles[transfer.file], transfer.file, offset, piece)

    def _write_piece(self, handle: int, file: int, offset: int, piece: torch.Tensor) -> None:
        _put(handle, _view(piece), offset)
        if self._progress is not None:
            self._progress(piece.numel())

    def _compare_piece(self, handle: int, file: int, offset: int, piece: torch.Tensor) -> None:
        found = os.pread(handle, piece.numel(), offset)
        if found != _view(piece):
            raise VerifyError(
                f"{self._files[file].name}: the {piece.numel()} bytes from {offset} on read back "
                "differently than they were written; check the disk"
            )


def piece_ranges(planned: Sequence[Transfer]) -> list[Range]:
    """File, offset and size of each piece in the order in which they are sent."""
    return [
        (t.file, t.offset + start, min(step, t.size - start))
        for t in planned
        for step in (PIECE // max(t.dtype.itemsize, t.run.data.dtype.itemsize) * t.dtype.itemsize,)
        for start in range(0, t.size, step)
    ]


def groups_to_compute(files: Sequence[File]) -> list[list[tuple[int, Placed]]]:
    """Group the tensors that must be computed so that no source is needed by two groups."""
    groups: list[tuple[frozenset[str], list[tuple[int, Placed]]]] = []
    for number, file in enumerate(files):
        for placed in file.tensors:
            if placed.entry.spans is not None:
                continue
            needs = placed.entry.needs
            members = [(number, placed)]
            apart = []
            for other_needs, others in groups:
                if needs & other_needs:
                    needs, members = needs | other_needs, others + members
                else:
                    apart.append((other_needs, others))
            groups = [*apart, (needs, members)]
    return [members for _, members in groups]


def _view(piece: torch.Tensor) -> memoryview:
    """The bytes of a contiguous CPU tensor, in place.

    Not through ``Tensor.numpy``: a storage that numpy has seen can never be resized again, which
    FSDP1 does with its flat parameters at every step.
    """
    return memoryview((ctypes.c_char * piece.numel()).from_address(piece.data_ptr())).cast("B")


def _put(handle: int, data: memoryview, offset: int) -> None:
    while data:
        count = os.pwrite(handle, data, offset)
        data, offset = data[count:], offset + count


class _Open:
    """The staged files, each opened when first needed; flushed to disk on the way out."""

    def __init__(self, folder: Path, files: Sequence[File], mode: int = os.O_RDWR) -> None:
        self._folder, self._files, self._mode = folder, files, mode
        self._handles: dict[int, int] = {}

    def __enter__(self) -> _Open:
        return self

    def __getitem__(self, number: int) -> int:
        if number not in self._handles:
            path = self._folder / self._files[number].name
            self._handles[number] = os.open(path, self._mode | os.O_NOFOLLOW)
        return self._handles[number]

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None and self._mode != os.O_RDONLY:
                for handle in self._handles.values():
                    os.fsync(handle)
        finally:
            for handle in self._handles.values():
                os.close(handle)
