"""Bytes of a file against those in memory."""

from __future__ import annotations

import ctypes
import os

import torch

from canonical_saver.file_io import as_memoryview

_MEMCMP = ctypes.CDLL(None).memcmp
_MEMCMP.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


def equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two pieces are the same bytes.

    ``torch.equal`` compares bytes one by one, which takes many times as long as reading them.

    Args:
        one: contiguous uint8 CPU tensor.
        other: another one of the same size.
    """
    return not _MEMCMP(one.data_ptr(), other.data_ptr(), one.numel())


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
    if count == piece.numel() and equal(found, piece):
        return None
    differing = found[:count] != piece[:count]
    return offset + (int(differing.to(torch.uint8).argmax()) if bool(differing.any()) else count)
