"""Regular files that are opened without trusting their names: no link, no FIFO, no device."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A file descriptor of a regular file; links are not followed and a FIFO does not block.

    Raises:
        OSError: the file cannot be opened, or is no regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path.name} is no regular file")
        yield descriptor
    finally:
        os.close(descriptor)


def read_whole(path: Path, limit: int) -> bytes:
    """All bytes of a file.

    Raises:
        OSError: as ``opened``, or the file has more than ``limit`` bytes.
    """
    with opened(path) as descriptor, os.fdopen(descriptor, "rb", closefd=False) as stream:
        # The size is not asked for first: a file can grow between the question and the reading.
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise OSError(f"{path.name} is larger than {limit} bytes")
    return content
