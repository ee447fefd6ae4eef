"""Each rank writes what it holds to its final place, in bounded pieces, without a second copy."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import tee
from pathlib import Path

import torch

from canonical_saver.collectives import Ranks
from canonical_saver.errors import VerifyError
from canonical_saver.file_io import flush, put, view
from canonical_saver.formats.layout import File
from canonical_saver.progress import Meter, Tell
from canonical_saver.writing.device_copy import to_host
from canonical_saver.writing.free_space import Room
from canonical_saver.writing.hosts import Sample, Samples
from canonical_saver.writing.overflow import Overflows
from canonical_saver.writing.shared_folder import View
from canonical_saver.writing.write_items import Batch, Transfer, batches, groups_to_compute
from canonical_saver.writing.write_plan import Prepared


@dataclass(frozen=True)
class Written:
    """What came of the part that a rank wrote.

    Attributes:
        samples: bytes to be read back through another host's mount.
        overflows: elements that a cast made infinite, by names of tensors.
    """

    samples: list[Sample]
    overflows: Counter[str]


class Writer:
    """Writes into staged files.

    Args:
        prepared: the plan, with the final layout.
        folder: the staging folder.
        views: for each rank, what it sees of the folder.
        ranks: the ranks of the save.
        tell: told of the progress.
        room: explains errors of a full disk.

    Attributes:
        prepared: the plan.
        folder: the staging folder.
        ranks: the ranks of the save.
        sees: for each rank, whether it sees the folder.
        groups: the tensors that must be computed, in order of their turns.
        meter: counts the bytes written.
        samples: some of the bytes that this rank writes.
        overflows: counts what this rank casts to infinity.
        room: explains errors of a full disk.
    """

    def __init__(
        self,
        prepared: Prepared,
        folder: Path,
        views: Sequence[View],
        ranks: Ranks,
        tell: Tell,
        room: Room,
    ) -> None:
        self.prepared, self.folder, self.ranks, self.room = prepared, folder, ranks, room
        self.sees = [one.sees for one in views]
        self.groups = groups_to_compute(prepared.files)
        self.samples = Samples.of_rank(ranks.rank, [one.host for one in views])
        self.overflows = Overflows(prepared.files)
        self.meter = Meter(tell)
        self._read_back = prepared.asked.verify == "full"
        if self.sees[ranks.rank]:
            for transfer in prepared.planned:
                self.meter.expect(transfer.file, transfer.size)
        for turn, group in enumerate(self.groups):
            if self.chosen(turn) == ranks.rank:
                for file, placed in group:
                    self.meter.expect(file, placed.size)

    def chosen(self, turn: int) -> int:
        """The rank that computes a group."""
        seeing = [rank for rank, sees in enumerate(self.sees) if sees]
        return seeing[turn % len(seeing)]

    def write(self) -> None:
        """Write this rank's own parts, and read them back if that was asked for.

        Raises:
            OSError: the file system refused a write.
            VerifyError: other bytes read back than were written.
        """
        if not self.sees[self.ranks.rank]:
            return
        planned = self.prepared.planned
        with self.room, self.open() as handles:
            for batch, pieces in self.carry(planned):
                self.put(handles, batch.file, batch.offset, pieces)
        if self._read_back:
            # After the flush, from the disk as far as that is possible.
            with self.open(os.O_RDONLY) as handles:
                for batch, pieces in _carried(planned):
                    self._compare(handles, batch.file, batch.offset, pieces)

    @property
    def written(self) -> Written:
        """What came of it so far."""
        return Written(self.samples.kept, self.overflows.counts)

    def write_checked(self, handles: OpenFiles, planned: Sequence[Transfer]) -> None:
        """Write parts that will not be there later, and read each back if that was asked for."""
        for batch, pieces in self.carry(planned):
            self.put_checked(handles, batch.file, batch.offset, pieces)

    def put_checked(
        self, handles: OpenFiles, file: int, offset: int, pieces: Sequence[torch.Tensor]
    ) -> None:
        """Write bytes, and read them back if that was asked for."""
        self.put(handles, file, offset, pieces)
        if self._read_back:
            self._compare(handles, file, offset, pieces)

    def put(
        self, handles: OpenFiles, file: int, offset: int, pieces: Sequence[torch.Tensor]
    ) -> None:
        """Write bytes.

        Args:
            handles: the open files.
            file: number of the file.
            offset: first byte in it.
            pieces: contiguous uint8 CPU tensors.
        """
        put(handles[file], [view(piece) for piece in pieces], offset)
        self.samples.add(file, offset, pieces)
        self.meter.wrote(file, sum(piece.numel() for piece in pieces))

    def carry(self, planned: Sequence[Transfer]) -> Iterator[tuple[Batch, list[torch.Tensor]]]:
        """Yield batches with their bytes, which are valid until the next one is asked for."""
        for batch, pieces in _carried(planned):
            self.overflows.look(batch, pieces)
            yield batch, pieces

    def open(self, mode: int = os.O_RDWR) -> OpenFiles:
        """The staged files, each opened when first needed."""
        return OpenFiles(self.folder, self.prepared.files, mode)

    def _compare(
        self, handles: OpenFiles, file: int, offset: int, pieces: Sequence[torch.Tensor]
    ) -> None:
        for piece in pieces:
            if os.pread(handles[file], piece.numel(), offset) != view(piece):
                raise VerifyError(
                    f"{self.prepared.files[file].name}: the {piece.numel()} bytes from {offset} on "
                    "read back differently than they were written; check the disk"
                )
            offset += piece.numel()


def _carried(planned: Sequence[Transfer]) -> Iterator[tuple[Batch, list[torch.Tensor]]]:
    kept, handed = tee(batches(planned))
    yield from zip(kept, to_host(batch.parts for batch in handed), strict=True)


class OpenFiles:
    """The staged files, each opened when first needed; flushed to disk on the way out."""

    def __init__(self, folder: Path, files: Sequence[File], mode: int = os.O_RDWR) -> None:
        self._folder, self._files, self._mode = folder, files, mode
        self._handles: dict[int, int] = {}

    def __enter__(self) -> OpenFiles:
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
