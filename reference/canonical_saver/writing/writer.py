"""Each rank writes what it holds to its final place, in bounded pieces, without a second copy."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import tee
from typing import TYPE_CHECKING

import torch

from canonical_saver.collectives import Ranks
from canonical_saver.errors import VerifyError
from canonical_saver.file_io import as_memoryview, pwrite_all
from canonical_saver.progress import Meter, ProgressCallback
from canonical_saver.weights.tensors import elements
from canonical_saver.writing.computed_tensors import groups_to_compute
from canonical_saver.writing.free_space import Room
from canonical_saver.writing.shared_folder import View
from canonical_saver.writing.staged_files import OpenFiles
from canonical_saver.writing.write_items import WriteBatch, WriteItem, batches
from canonical_saver.writing.write_plan import WritePlan

if TYPE_CHECKING:
    from canonical_saver.writing.hosts import Sample, Samples
    from canonical_saver.writing.overflow import Overflows
    from canonical_saver.writing.piece_digests import PieceDigests

ASYNCHRONOUS = frozenset({"cuda", "xpu"})
"""Kinds of devices that copy while the processor writes."""


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
        write_plan: the plan, with the final layout.
        staging: the staging folder, relative to the output folder.
        views: for each rank, what it sees of the folder.
        ranks: the ranks of the save.
        on_progress: told of the progress.
        room: explains errors of a full disk.

    Attributes:
        write_plan: the plan.
        folder: the staging folder.
        ranks: the ranks of the save.
        shares_folder: for each rank, whether it sees the folder.
        groups: the tensors that must be computed, in order of their turns.
        meter: counts the bytes written.
        samples: some of the bytes that this rank writes; None if all ranks are on one host.
        overflows: counts what this rank casts to infinity; None if nothing is cast.
        room: explains errors of a full disk.
        digests: digests what this rank writes; None if that was not requested.
    """

    def __init__(
        self,
        write_plan: WritePlan,
        staging: str,
        views: Sequence[View],
        ranks: Ranks,
        on_progress: ProgressCallback,
        room: Room,
    ) -> None:
        self.write_plan, self.ranks, self.room = write_plan, ranks, room
        self.folder = write_plan.request.output_dir / staging
        self.shares_folder = [one.shares_folder for one in views]
        self.groups = groups_to_compute(write_plan.files)
        self.samples: Samples | None = None
        hosts = [one.host for one in views]
        if len(set(hosts)) > 1:
            from canonical_saver.writing.hosts import Samples

            self.samples = Samples.of_rank(ranks.rank, hosts)
        self.overflows: Overflows | None = None
        if write_plan.request.dtype is not None:
            from canonical_saver.writing.overflow import Overflows

            self.overflows = Overflows(write_plan.files)
        self.meter = Meter(on_progress)
        self.digests: PieceDigests | None = None
        if write_plan.request.digest:
            from canonical_saver.writing.piece_digests import PieceDigests

            self.digests = PieceDigests(write_plan.files)
        self._read_back = write_plan.request.verify == "full"
        if self.shares_folder[ranks.rank]:
            for item in write_plan.planned:
                self.meter.expect(item.file, item.size)
        for turn, group in enumerate(self.groups):
            if self.chosen(turn) == ranks.rank:
                for file, placed in group:
                    self.meter.expect(file, placed.size)

    def chosen(self, turn: int) -> int:
        """The rank that computes a group."""
        seeing = [rank for rank, shares_folder in enumerate(self.shares_folder) if shares_folder]
        return seeing[turn % len(seeing)]

    def write(self) -> None:
        """Write this rank's own parts, and read them back if that was requested.

        Raises:
            OSError: the file system refused a write.
            VerifyError: other bytes read back than were written.
        """
        if not self.shares_folder[self.ranks.rank]:
            return
        planned = self.write_plan.planned
        with self.room, self.open() as handles:
            for batch, pieces in self.carry(planned):
                self.pwrite_all(handles, batch.file, batch.offset, pieces)
        if self._read_back:
            # After the flush, from the disk as far as that is possible.
            with self.open(os.O_RDONLY) as handles:
                for batch, pieces in carried(planned):
                    self._compare(handles, batch.file, batch.offset, pieces)

    @property
    def written(self) -> Written:
        """What came of it so far."""
        return Written(
            [] if self.samples is None else self.samples.kept,
            Counter() if self.overflows is None else self.overflows.counts,
        )

    def write_now(self, handles: OpenFiles, planned: Sequence[WriteItem]) -> None:
        """Write parts that will not be there later, and read each back if that was requested."""
        for batch, pieces in self.carry(planned):
            self.write_and_check(handles, batch.file, batch.offset, pieces)

    def write_and_check(
        self, handles: OpenFiles, file: int, offset: int, pieces: Sequence[torch.Tensor]
    ) -> None:
        """Write bytes, and read them back if that was requested."""
        self.pwrite_all(handles, file, offset, pieces)
        if self._read_back:
            self._compare(handles, file, offset, pieces)

    def pwrite_all(
        self, handles: OpenFiles, file: int, offset: int, pieces: Sequence[torch.Tensor]
    ) -> None:
        """Write bytes.

        Args:
            handles: the open files.
            file: number of the file.
            offset: first byte in it.
            pieces: contiguous uint8 CPU tensors.
        """
        pwrite_all(handles[file], [as_memoryview(piece) for piece in pieces], offset)
        if self.samples is not None:
            self.samples.add(file, offset, pieces)
        if self.digests is not None:
            self.digests.add(file, offset, pieces)
        self.meter.wrote(file, sum(piece.numel() for piece in pieces))

    def carry(
        self, planned: Sequence[WriteItem]
    ) -> Iterator[tuple[WriteBatch, list[torch.Tensor]]]:
        """Yield batches with their bytes, which are valid until the next one is requested."""
        for batch, pieces in carried(planned):
            if self.overflows is not None:
                self.overflows.look(batch, pieces)
            yield batch, pieces

    def open(self, mode: int = os.O_RDWR) -> OpenFiles:
        """The staged files, each opened when first needed."""
        return OpenFiles(self.folder, self.write_plan.files, mode)

    def _compare(
        self, handles: OpenFiles, file: int, offset: int, pieces: Sequence[torch.Tensor]
    ) -> None:
        from canonical_saver.writing.read_back import first_difference

        for piece in pieces:
            first = first_difference(handles[file], offset, piece)
            if first is not None:
                raise VerifyError(
                    f"{self.write_plan.files[file].name}: the {piece.numel()} bytes from {offset} "
                    "on read back differently than they were written; check the disk"
                )
            offset += piece.numel()


def carried(planned: Sequence[WriteItem]) -> Iterator[tuple[WriteBatch, list[torch.Tensor]]]:
    """Yield batches of what this rank holds with their bytes, valid until the next one."""
    found = batches(planned)
    if not any(item.local_slice.data.device.type in ASYNCHRONOUS for item in planned):
        for batch in found:
            yield batch, [elements(*part).to("cpu") for part in batch.parts]
        return
    from canonical_saver.writing.device_copy import to_host

    kept, handed = tee(found)
    yield from zip(kept, to_host(batch.parts for batch in handed), strict=True)
