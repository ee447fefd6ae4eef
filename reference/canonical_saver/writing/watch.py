"""What some saves find out while they write: progress, digests, overflows, samples of the bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from canonical_saver.formats.layout import File
from canonical_saver.progress import Meter, ProgressCallback
from canonical_saver.writing import overflow
from canonical_saver.writing.computed_tensors import chosen, groups_to_compute
from canonical_saver.writing.hosts import Sample, Samples, read_back
from canonical_saver.writing.overflow import Overflows
from canonical_saver.writing.piece_digests import PieceDigests
from canonical_saver.writing.shared_folder import View
from canonical_saver.writing.write_items import WriteBatch
from canonical_saver.writing.write_plan import WritePlan


@dataclass(frozen=True)
class Written:
    """What came of the part that a rank wrote.

    Attributes:
        samples: bytes to be read back through another host's mount.
        overflows: elements that a cast made infinite, by names of tensors.
    """

    samples: list[Sample]
    overflows: Counter[str]


class Watch:
    """Looks at what a rank writes.

    Args:
        plan: the plan, with the final layout.
        rank: this rank.
        shares_folder: for each rank, whether it sees the folder.
        hosts: for each rank, its host.
        on_progress: told of the progress, None if nobody is.

    Attributes:
        meter: counts the bytes written; None if nobody is told.
        samples: some of the bytes that this rank writes; None if all ranks are on one host.
        overflows: counts what this rank casts to infinity; None if nothing is cast.
        digests: digests what this rank writes; None if that was not requested.
    """

    def __init__(
        self,
        plan: WritePlan,
        rank: int,
        shares_folder: Sequence[bool],
        hosts: Sequence[str],
        on_progress: ProgressCallback | None,
    ) -> None:
        several = len(set(hosts)) > 1
        self.samples = Samples.of_rank(rank, hosts) if several else None
        self.overflows = None if plan.request.dtype is None else Overflows(plan.files)
        self.digests = PieceDigests(plan.files) if plan.request.digest else None
        self.meter = None if on_progress is None else Meter(on_progress)
        if shares_folder[rank]:
            for item in plan.planned:
                self.expect(item.file, item.size)
        for turn, group in enumerate(groups_to_compute(plan.files)):
            if chosen(turn, shares_folder) == rank:
                for file, placed in group:
                    self.expect(file, placed.size)

    def expect(self, file: int, size: int) -> None:
        """Learn that so many bytes are to be written to a file."""
        if self.meter is not None:
            self.meter.expect(file, size)

    def carried(self, batch: WriteBatch, pieces: Sequence[torch.Tensor]) -> None:
        """Learn of a batch that was carried to main memory."""
        if self.overflows is not None:
            self.overflows.look(batch, pieces)

    def wrote(self, file: int, offset: int, pieces: Sequence[torch.Tensor]) -> None:
        """Learn of a write."""
        if self.samples is not None:
            self.samples.add(file, offset, pieces)
        if self.digests is not None:
            self.digests.add(file, offset, pieces)
        if self.meter is not None:
            self.meter.wrote(file, sum(piece.numel() for piece in pieces))

    @property
    def written(self) -> Written:
        """What came of it so far."""
        return Written(
            [] if self.samples is None else self.samples.kept,
            Counter() if self.overflows is None else self.overflows.counts,
        )


def check(
    written: Sequence[Written],
    folder: Path,
    files: Sequence[File],
    views: Sequence[View],
    dtype: torch.dtype | None,
) -> list[str]:
    """Check on rank 0 what the ranks found out, before the files become the model.

    Args:
        written: what came of each rank's part.
        folder: the staging folder.
        files: the layout.
        views: for each rank, what it saw of the folder and from where.
        dtype: what the tensors were cast to, None if they were not.

    Returns:
        What is not as one may expect and is saved all the same.

    Raises:
        VerifyError: what another host wrote has not reached the file.
    """
    hosts = [view.host for view in views]
    if len(set(hosts)) > 1:
        read_back(folder, files, [one.samples for one in written], hosts)
    return [] if dtype is None else overflow.warnings([one.overflows for one in written], dtype)
