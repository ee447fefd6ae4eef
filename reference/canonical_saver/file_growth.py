"""Files on mounts that cannot give them a size."""

from __future__ import annotations

import os

from canonical_saver.file_io import LOST, pwrite_all

_ZEROS = bytes(2**20)


def extend(handle: int, size: int, refused: OSError) -> None:
    """Give a file its size by writing: its last byte or, where no hole can be left, every byte.

    Args:
        handle: an open file.
        size: its bytes.
        refused: why it could not be given its size.

    Raises:
        OSError: there is no room for it.
    """
    if refused.errno in LOST:
        raise refused
    if not size:
        return
    try:
        os.pwrite(handle, b"\0", size - 1)
    except OSError as error:
        if error.errno in LOST:
            raise
        for offset in range(0, size, len(_ZEROS)):
            pwrite_all(handle, [memoryview(_ZEROS)[: size - offset]], offset)
