"""What ranks on other hosts have written, read back through the mount of rank 0.

Each rank sees its own writes in its own host's cache. Whether they have reached the files, only a
look from another host tells: a network mount may lose what one client writes beside another one,
and no error says so.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from canonical_saver.errors import VerifyError
from canonical_saver.file_io import as_memoryview
from canonical_saver.formats.layout import File

MOST_SAMPLES = 2048
"""Samples of all ranks together; each is a read across the network."""

_LEAST_SAMPLES = 4
_LENGTH = 16
_WINDOW = 4096

Sample = tuple[int, int, bytes]
"""Number of a file, first byte in it, and the bytes that were written there."""


@dataclass
class Samples:
    """Keeps some of the bytes that this rank writes, spread evenly over all of them.

    Attributes:
        most: how many at most, 0 to keep none.
        kept: the samples.
    """

    most: int
    kept: list[Sample] = field(default_factory=list)
    _stride: int = 1
    _seen: int = 0

    @classmethod
    def of_rank(cls, rank: int, hosts: Sequence[str]) -> Samples:
        """Keep samples where rank 0 is on another host.

        Args:
            rank: this rank.
            hosts: for each rank, its host.
        """
        others = sum(host != hosts[0] for host in hosts)
        if hosts[rank] == hosts[0]:
            return cls(0)
        return cls(max(_LEAST_SAMPLES, MOST_SAMPLES // others))

    def add(self, file: int, offset: int, pieces: Sequence[torch.Tensor]) -> None:
        """Learn of a write.

        Args:
            file: number of the file.
            offset: first byte in it.
            pieces: the bytes, one piece behind the other.
        """
        if not self.most:
            return
        self._seen += 1
        if (self._seen - 1) % self._stride:
            return
        first, last = (
            bytes(as_memoryview(pieces[0])[:_WINDOW]),
            bytes(as_memoryview(pieces[-1])[-_WINDOW:]),
        )
        # A new file is full of zeros: they are there even if nothing was written.
        start = min(len(first) - len(first.lstrip(b"\0")), max(len(first) - _LENGTH, 0))
        stop = max(len(last.rstrip(b"\0")), min(_LENGTH, len(last)))
        end = offset + sum(piece.numel() for piece in pieces)
        tail = last[max(stop - _LENGTH, 0) : stop]
        self.kept.append((file, offset + start, first[start : start + _LENGTH]))
        self.kept.append((file, end - len(last) + stop - len(tail), tail))
        if len(self.kept) > self.most:
            # Of two neighbours one goes: both ends of a write stay or go together.
            self.kept = [s for n, s in enumerate(self.kept) if n // 2 % 2 == 0]
            self._stride *= 2


def read_back(
    folder: Path, files: Sequence[File], everyone: Sequence[Sequence[Sample]], hosts: Sequence[str]
) -> None:
    """Read samples of all ranks through this rank's mount.

    Args:
        folder: the staging folder.
        files: the layout.
        everyone: for each rank its samples.
        hosts: for each rank its host.

    Raises:
        VerifyError: other bytes are there; names file, byte and rank.
    """
    for rank, samples in enumerate(everyone):
        for number in sorted({file for file, *_ in samples}):
            name = files[number].name
            handle = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                # What this host has in its cache may be older than what is in the file.
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
                for file, offset, expected in samples:
                    if file == number and os.pread(handle, len(expected), offset) != expected:
                        raise VerifyError(
                            f"{name}: the {len(expected)} bytes from {offset} on that rank {rank} "
                            f"wrote on host {hosts[rank].split()[0]} read back differently on host "
                            f"{hosts[0].split()[0]} of rank 0; save to a file system on which "
                            "hosts see each other's writes, or to one that only rank 0 sees, to "
                            "which the others then send what they hold"
                        )
            finally:
                os.close(handle)
