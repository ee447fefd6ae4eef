"""Files on mounts that cannot reserve blocks for them, or cannot give them a size either."""

from __future__ import annotations

import os

from canonical_saver.file_io import LOST, pwrite_all

_ZEROS = bytes(2**20)


def grow(handle: int, size: int, refused: int) -> None:
    """Give a new file its size without reserving blocks.

    Args:
        handle: an open file.
        size: its bytes.
        refused: the error number with which blocks were refused; 0 if the system has no such call.

    Raises:
        OSError: there is no room for it.
    """
    if refused in LOST:
        raise OSError(refused, os.strerror(refused))
    try:
        os.truncate(handle, size)
    except OSError as error:
        if error.errno in LOST:
            raise
        if size:
            _extend(handle, size)


def _extend(handle: int, size: int) -> None:
    """Write the last byte of a file or, where no hole can be left, every byte."""
    try:
        os.pwrite(handle, b"\0", size - 1)
    except OSError as error:
        if error.errno in LOST:
            raise
        for offset in range(0, size, len(_ZEROS)):
            pwrite_all(handle, [memoryview(_ZEROS)[: size - offset]], offset)
