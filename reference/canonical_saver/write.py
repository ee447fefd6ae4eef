"""Each rank writes what it holds to its final place.

Pieces are bounded, so a rank needs no second copy of anything. Where a rank does not see the output
folder, its pieces travel to rank 0, one at a time. Only tensors that must be computed are gathered,
one group at a time, by turns on different ranks.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import tee
from pathlib import Path

import torch

from canonical_saver.disk import flush, put, reserve, view
from canonical_saver.entries import Weights
from canonical_saver.errors import VerifyError, WriteError
from canonical_saver.hosts import Samples
from canonical_saver.layout import File, Placed
from canonical_saver.overflow import Overflows
from canonical_saver.pinned import PIECE, to_host
from canonical_saver.progress import Meter
from canonical_saver.ranks import Ranks
from canonical_saver.sources import read, whole
from canonical_saver.transfers import Batch, Range, Transfer, batches

Group = Sequence[tuple[int, Placed]]
"""Numbers of files, and the tensors in them that are computed together."""


class Writer:
    """Writes into staged files.

    Args:
        folder: the staging folder.
        files: the layout.
        sees: for each rank, whether it sees the folder.
        ranks: the ranks of the save.
        full: whether to read back and compare everything.
        meter: told of the bytes written.
        samples: told of the bytes that this rank writes.

    Attributes:
        overflows: counts what this rank casts to infinity.
    """

    def __init__(
        self,
        folder: Path,
        files: Sequence[File],
        sees: Sequence[bool],
        ranks: Ranks,
        full: bool,
        meter: Meter,
        samples: Samples,
    ) -> None:
        self._folder, self._files, self._sees, self._ranks = folder, files, sees, ranks
        self._full, self._meter, self._samples = full, meter, samples
        self.overflows = Overflows(files)

    def create(self) -> None:
        """Make each file at its final size, with its header; for rank 0."""
        for file in self._files:
            if not file.header:
                continue
            path = self._folder / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            handle = os.open(path, flags, 0o666)
            try:
                reserve(handle, file.size)
                put(handle, [memoryview(file.header)], 0)
            finally:
                os.close(handle)

    def expect(self, planned: Sequence[Transfer], groups: Sequence[Group]) -> None:
        """Say how much this rank will write itself.

        Args:
            planned: this rank's parts.
            groups: the groups of computed tensors, in order of their turns.
        """
        if self._sees[self._ranks.rank]:
            for transfer in planned:
                self._meter.expect(transfer.file, transfer.size)
        for turn, group in enumerate(groups):
            if self._chosen(turn) == self._ranks.rank:
                for file, placed in group:
                    self._meter.expect(file, placed.size)

    def write(self, planned: Sequence[Transfer]) -> None:
        """Write this rank's own parts, if it sees the folder."""
        if not self._sees[self._ranks.rank]:
            return
        with _Open(self._folder, self._files) as handles:
            self._write_all(handles, planned, compare=False)

    def stream(self, planned: Sequence[Transfer], everyone: Sequence[Sequence[Range]]) -> None:
        """Carry the parts of ranks without the folder to rank 0, which writes them.

        Args:
            planned: this rank's parts.
            everyone: for each such rank, the ranges of its batches in order.
        """
        rank = self._ranks.rank
        if not self._sees[rank]:
            self._ranks.send((_one(pieces) for _, pieces in self._cast(planned)), 0)
        if rank != 0:
            return
        for places in everyone:
            for file, _, size in places:
                self._meter.expect(file, size)
        failure: OSError | VerifyError | WriteError | None = None
        with _Open(self._folder, self._files) as handles:
            for sender, sees in enumerate(self._sees):
                places = () if sees else everyone[sender]
                received = self._ranks.receive((size for *_, size in places), sender)
                for (file, offset, _), piece in zip(places, received, strict=False):
                    if failure is not None:
                        continue  # the sender cannot know, so it is heard to its end
                    try:
                        self._write(handles, file, offset, [piece])
                        if self._full:
                            self._compare(handles[file], file, offset, [piece])
                    except (OSError, VerifyError, WriteError) as error:
                        failure = error
        if failure is not None:
            raise failure

    def _chosen(self, turn: int) -> int:
        """The rank that computes a group."""
        seeing = [rank for rank, sees in enumerate(self._sees) if sees]
        return seeing[turn % len(seeing)]

    def compute(self, turn: int, weights: Weights, group: Group) -> None:
        """Gather one group of sources on one rank, convert them there and write the result.

        Args:
            turn: number of the group, which chooses the rank.
            weights: what the group is a part of.
            group: file numbers and places of the tensors that are computed together.
        """
        ranks, memory = self._ranks, weights.memory
        chosen = self._chosen(turn)
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
        converted = weights.compute(shaped)
        with _Open(self._folder, self._files) as handles:
            for file, placed in group:
                tensor = converted.pop(placed.entry.name).contiguous()
                run = whole(tensor).runs[0]
                transfer = Transfer(file, placed.offset, run, placed.dtype)
                self._write_all(handles, [transfer], compare=self._full)

    def compare(self, planned: Sequence[Transfer]) -> None:
        """Read this rank's own parts back and compare their bits, if that was asked for."""
        if not self._full or not self._sees[self._ranks.rank]:
            return
        with _Open(self._folder, self._files, os.O_RDONLY) as handles:
            for batch, pieces in _carried(planned):
                self._compare(handles[batch.file], batch.file, batch.offset, pieces)

    def _write_all(self, handles: _Open, planned: Sequence[Transfer], *, compare: bool) -> None:
        for batch, pieces in self._cast(planned):
            self._write(handles, batch.file, batch.offset, pieces)
            if compare:
                self._compare(handles[batch.file], batch.file, batch.offset, pieces)

    def _cast(self, planned: Sequence[Transfer]) -> Iterator[tuple[Batch, list[torch.Tensor]]]:
        for batch, pieces in _carried(planned):
            self.overflows.look(batch, pieces)
            yield batch, pieces

    def _write(
        self, handles: _Open, file: int, offset: int, pieces: Sequence[torch.Tensor]
    ) -> None:
        put(handles[file], [view(piece) for piece in pieces], offset)
        self._samples.add(file, offset, pieces)
        self._meter.wrote(file, sum(piece.numel() for piece in pieces))

    def _compare(self, handle: int, file: int, offset: int, pieces: Sequence[torch.Tensor]) -> None:
        for piece in pieces:
            found = os.pread(handle, piece.numel(), offset)
            if found != view(piece):
                raise VerifyError(
                    f"{self._files[file].name}: the {piece.numel()} bytes from {offset} on read "
                    "back differently than they were written; check the disk"
                )
            offset += piece.numel()


def batch_ranges(planned: Sequence[Transfer]) -> list[Range]:
    """File, offset and size of each batch in the order in which they are sent."""
    return [(batch.file, batch.offset, batch.size) for batch in batches(planned)]


def _carried(planned: Sequence[Transfer]) -> Iterator[tuple[Batch, list[torch.Tensor]]]:
    """Yield batches with their bytes, which are valid until the next one is asked for."""
    kept, handed = tee(batches(planned))
    yield from zip(kept, to_host(batch.parts for batch in handed), strict=True)


def _one(pieces: list[torch.Tensor]) -> torch.Tensor:
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


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
                    flush(handle)
        finally:
            for handle in self._handles.values():
                os.close(handle)
