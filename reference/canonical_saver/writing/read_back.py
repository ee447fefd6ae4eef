"""Bytes of a file against those in memory."""

from __future__ import annotations

import os

import torch

from canonical_saver.file_io import as_memoryview


def read_into(handle: int, offset: int, buffer: torch.Tensor) -> int:
    """Read bytes of a file, as many as there are.

    Args:
        handle: an open file.
        offset: the first byte.
        buffer: contiguous uint8 CPU tensor, filled from its beginning.

    Returns:
        How many bytes were read: fewer than fit only at the end of the file.
    """
    done, size = 0, buffer.numel()
    while done < size:
        count = os.preadv(handle, [as_memoryview(buffer[done:], writable=True)], offset + done)
        if not count:
            break
        done += count
    return done


def first_difference(handle: int, offset: int, piece: torch.Tensor) -> int | None:
    """The first byte of a file that differs from a piece in memory, None if none does.

    Args:
        handle: an open file.
        offset: where in the file the piece should be.
        piece: contiguous uint8 CPU tensor; as much again is needed for what is read.
    """
    found = torch.empty_like(piece)
    count = read_into(handle, offset, found)
    if count == piece.numel() and torch.equal(found, piece):
        return None
    differing = found[:count] != piece[:count]
    return offset + (int(differing.to(torch.uint8).argmax()) if bool(differing.any()) else count)
