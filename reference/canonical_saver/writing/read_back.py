"""Bytes of a file against those in memory."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence

import torch

from canonical_saver.errors import VerifyError
from canonical_saver.file_io import as_memoryview
from canonical_saver.writing.write_items import WriteItem
from canonical_saver.writing.writer import Handles, Writer, carried

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


def compare_all(writer: Writer) -> None:
    """Read back what this rank wrote of its own, after the flush: from the disk where possible.

    Raises:
        VerifyError: other bytes read back than were written.
    """
    with writer.open(os.O_RDONLY) as handles:
        for batch, pieces in carried(writer.write_plan.planned):
            _compare(writer, handles, batch.file, batch.offset, pieces)


def write_now(writer: Writer, handles: Handles, planned: Sequence[WriteItem]) -> None:
    """Write parts that will not be there later, and read each back if that was requested."""
    for batch, pieces in writer.carry(planned):
        write_and_check(writer, handles, batch.file, batch.offset, pieces)


def write_and_check(
    writer: Writer, handles: Handles, file: int, offset: int, pieces: Sequence[torch.Tensor]
) -> None:
    """Write bytes, and read them back if that was requested."""
    writer.pwrite_all(handles, file, offset, pieces)
    if writer.write_plan.request.verify == "full":
        _compare(writer, handles, file, offset, pieces)


def _compare(
    writer: Writer, handles: Handles, file: int, offset: int, pieces: Sequence[torch.Tensor]
) -> None:
    for piece in pieces:
        if first_difference(handles(file), offset, piece) is not None:
            raise VerifyError(
                f"{writer.write_plan.files[file].name}: the {piece.numel()} bytes from {offset} "
                "on read back differently than they were written; check the disk"
            )
        offset += piece.numel()
