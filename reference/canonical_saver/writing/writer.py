"""Each rank writes what it holds to its final place, in bounded pieces, without a second copy."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import tee
from typing import TYPE_CHECKING

import torch

from canonical_saver.collectives import Ranks
from canonical_saver.file_io import as_memoryview, flush, pwrite_all
from canonical_saver.weights.tensors import elements
from canonical_saver.writing.free_space import Room
from canonical_saver.writing.write_items import WriteBatch, WriteItem, batches
from canonical_saver.writing.write_plan import WritePlan

if TYPE_CHECKING:
    from canonical_saver.progress import ProgressCallback
    from canonical_saver.writing.shared_folder import View
    from canonical_saver.writing.watch import Watch, Written

ASYNCHRONOUS = frozenset({"cuda", "xpu"})
"""Kinds of devices that copy while the processor writes."""

Handles = Callable[[int], int]
"""Gives the handle of a staged file by its number."""


class Writer:
    """Writes into staged files.

    Args:
        write_plan: the plan, with the final layout.
        staging: the staging folder, relative to the output folder.
        views: for each rank, what it sees of the folder; empty for a process by itself.
        ranks: the ranks of the save.
        on_progress: told of the progress, None if nobody is.
        room: explains errors of a full disk.

    Attributes:
        write_plan: the plan.
        folder: the staging folder.
        ranks: the ranks of the save.
        shares_folder: for each rank, whether it sees the folder.
        room: explains errors of a full disk.
        watch: looks at what is written; None if nothing is to be found out.
    """

    def __init__(
        self,
        write_plan: WritePlan,
        staging: str,
        views: Sequence[View],
        ranks: Ranks,
        on_progress: ProgressCallback | None,
        room: Room,
    ) -> None:
        self.write_plan, self.ranks, self.room = write_plan, ranks, room
        self.folder = write_plan.request.output_dir / staging
        self.shares_folder = [view.shares_folder for view in views] or [True]
        self.watch: Watch | None = None
        hosts = [view.host for view in views]
        request = write_plan.request
        if on_progress or len(set(hosts)) > 1 or request.dtype is not None or request.digest:
            from canonical_saver.writing.watch import Watch

            self.watch = Watch(write_plan, ranks.rank, self.shares_folder, hosts, on_progress)

    def write(self) -> None:
        """Write this rank's own parts, and read them back if that was requested.

        Raises:
            OSError: the file system refused a write.
            VerifyError: other bytes read back than were written.
        """
        if not self.shares_folder[self.ranks.rank]:
            return
        with self.room, self.open() as handles:
            for batch, pieces in self.carry(self.write_plan.planned):
                self.pwrite_all(handles, batch.file, batch.offset, pieces)
        if self.write_plan.request.verify == "full":
            from canonical_saver.writing.read_back import compare_all

            compare_all(self)

    @property
    def written(self) -> Written | None:
        """What was found out so far."""
        return None if self.watch is None else self.watch.written

    def pwrite_all(
        self, handles: Handles, file: int, offset: int, pieces: Sequence[torch.Tensor]
    ) -> None:
        """Write bytes.

        Args:
            handles: the open files, of :meth:`open`.
            file: number of the file.
            offset: first byte in it.
            pieces: contiguous uint8 CPU tensors.
        """
        pwrite_all(handles(file), [as_memoryview(piece) for piece in pieces], offset)
        if self.watch is not None:
            self.watch.wrote(file, offset, pieces)

    def carry(
        self, planned: Sequence[WriteItem]
    ) -> Iterator[tuple[WriteBatch, list[torch.Tensor]]]:
        """Yield batches with their bytes, which are valid until the next one is requested."""
        for batch, pieces in carried(planned):
            if self.watch is not None:
                self.watch.carried(batch, pieces)
            yield batch, pieces

    @contextmanager
    def open(self, mode: int = os.O_RDWR) -> Iterator[Handles]:
        """The staged files, each opened when first needed; flushed to disk on the way out."""
        opened: dict[int, int] = {}

        def handle_of(number: int) -> int:
            if number not in opened:
                path = self.folder / self.write_plan.files[number].name
                opened[number] = os.open(path, mode | os.O_NOFOLLOW)
            return opened[number]

        try:
            yield handle_of
            if mode != os.O_RDONLY:
                for handle in opened.values():
                    flush(handle)
        finally:
            for handle in opened.values():
                os.close(handle)


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
