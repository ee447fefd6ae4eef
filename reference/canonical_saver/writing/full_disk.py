"""What to say when a disk is full: how much a save needs, and how much was free."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from canonical_saver.errors import SaveError, WriteError

_FULL = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))


def explain(
    error: BaseException, folder: Path, needed: int, found: os.statvfs_result | None
) -> None:
    """Explain an error of a full disk; nothing is said of another one.

    Args:
        error: what went wrong.
        folder: where the model is saved.
        needed: bytes of its weights.
        found: what the disk said when the save began, None if nothing.

    Raises:
        WriteError: the disk is full.
    """
    # Libraries that write by themselves have errors of their own, with the system's text.
    texts = [text for text in _FULL if text in str(error)]
    if texts and not isinstance(error, SaveError):
        raise WriteError(
            f"{texts[0]}: expected room for {needed:,} bytes of weights in "
            f"{folder}, found {_free(found)} when the save began; the model of an earlier "
            "save stays until the new one is complete, so there must be room for both: make "
            "some, or save to another folder"
        ) from error


def _free(found: os.statvfs_result | None) -> str:
    if found is None:
        return "a disk that does not say how much is free"
    text = f"{found.f_bavail * found.f_frsize:,} bytes"
    # Some file systems have no limit for files, and say 0 of 0.
    return f"{text} and {found.f_favail:,} files free" if found.f_files else f"{text} free"
