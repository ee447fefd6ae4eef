"""How much a save needs, and how much was free when it began."""

from __future__ import annotations

import os
from pathlib import Path


class Room:
    """Explains errors of a full disk; a context that can be entered again and again.

    Args:
        folder: where the model is saved.
        needed: bytes of its weights.
    """

    def __init__(self, folder: Path, needed: int) -> None:
        self._folder, self._needed = folder, needed
        self._free = _statvfs(folder)

    def __enter__(self) -> None: ...

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is not None:
            from canonical_saver.writing.full_disk import explain

            explain(error, self._folder, self._needed, self._free)


def _statvfs(folder: Path) -> os.statvfs_result | None:
    """What the disk of a folder says, which may not exist yet."""
    for place in (folder, *folder.parents):
        try:
            return os.statvfs(place)
        except OSError:
            continue
    return None
