"""Regular files that are opened without trusting their names: no link, no FIFO, no device.

The links of a hub cache are the exception: they lead to a blob of the same repository.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from saver_conformance.folder.hub_cache import blob_of


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A file descriptor of a regular file; a FIFO does not block.

    Of links only those of a hub cache are followed.

    Raises:
        OSError: the file cannot be opened, or is no regular file.
    """
    descriptor = os.open(
        blob_of(path) or path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    )
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
        # The size is not read first: a file can grow between the question and the reading.
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise OSError(f"{path.name} is larger than {limit} bytes")
    return content
