"""Ranks that do not see the output folder send what they hold to rank 0, one piece at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from canonical_saver.errors import VerifyError, WriteError
from canonical_saver.writing.pieces import receive, send
from canonical_saver.writing.read_back import write_and_check
from canonical_saver.writing.write_items import Range, batches
from canonical_saver.writing.writer import Writer


def relay(writer: Writer) -> None:
    """Carry the parts of ranks without the folder to rank 0, which writes them; collective.

    Nothing is to be done where all ranks see the folder.

    Raises:
        SaveError: the same on every rank, when it failed on any.
    """
    if all(writer.shares_folder):
        return
    ranks = writer.ranks
    planned = [] if writer.shares_folder[ranks.rank] else writer.write_plan.planned
    places = ranks.exchange("relay", lambda: [(b.file, b.offset, b.size) for b in batches(planned)])

    def carry() -> None:
        if not writer.shares_folder[ranks.rank]:
            send(ranks, (_joined(pieces) for _, pieces in writer.carry(planned)), 0)
        if ranks.rank == 0:
            with writer.room:
                _receive(writer, places)

    ranks.step("relay", carry)


def _receive(writer: Writer, everyone: Sequence[Sequence[Range]]) -> None:
    """Write what each rank sends to the places that it named."""
    for places in everyone:
        for file, _, size in places:
            if writer.watch is not None:
                writer.watch.expect(file, size)
    failure: OSError | VerifyError | WriteError | None = None
    with writer.open() as handles:
        for sender, places in enumerate(everyone):
            received = receive(writer.ranks, (size for *_, size in places), sender)
            for (file, offset, _), piece in zip(places, received, strict=False):
                if failure is not None:
                    continue  # the sender cannot know, so it is heard to its end
                try:
                    write_and_check(writer, handles, file, offset, [piece])
                except (OSError, VerifyError, WriteError) as error:
                    failure = error
    if failure is not None:
        raise failure


def _joined(pieces: list[torch.Tensor]) -> torch.Tensor:
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)
