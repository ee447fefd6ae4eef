"""What to say when a disk is full: how much a save needs, and how much was free."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from canonical_saver.errors import SaveError, WriteError

_FULL = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))


class Room:
    """Explains errors of a full disk; a context that can be entered again and again.

    Args:
        folder: where the model is saved.
        needed: bytes of its weights.
    """

    def __init__(self, folder: Path, needed: int) -> None:
        self._folder, self._needed = folder, needed
        self._free = _free(folder)

    def __enter__(self) -> None: ...

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        # Libraries that write by themselves have errors of their own, with the system's text.
        told = [text for text in _FULL if text in str(error)]
        if told and not isinstance(error, SaveError):
            raise WriteError(
                f"{told[0]}: expected room for {self._needed:,} bytes of weights in "
                f"{self._folder}, found {self._free} when the save began; the model of an earlier "
                "save stays until the new one is complete, so there must be room for both: make "
                "some, or save to another folder"
            ) from error


def _free(folder: Path) -> str:
    """How much is free on the disk of a folder, which may not exist yet."""
    for place in (folder, *folder.parents):
        try:
            found = os.statvfs(place)
        except OSError:
            continue
        text = f"{found.f_bavail * found.f_frsize:,} bytes"
        # Some file systems have no limit for files, and say 0 of 0.
        return f"{text} and {found.f_favail:,} files free" if found.f_files else f"{text} free"
    return "a disk that does not say how much is free"
