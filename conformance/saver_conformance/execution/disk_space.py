"""Whether the disk has room for a save: a saver is not to blame for a disk that is full."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

ROOM = 16 << 20
"""Bytes that a case may need; its models are far below 1 MiB, and some are saved many times."""
ROOM_FILES = 200
"""Files that a case may need."""

_FULL = (os.strerror(errno.ENOSPC), f"[Errno {errno.ENOSPC}]")
_QUOTA = (os.strerror(errno.EDQUOT), f"[Errno {errno.EDQUOT}]")


def why_no_room(folder: Path) -> str:
    """What the file system of ``folder`` lacks for a case; empty when it has enough."""
    found = os.statvfs(folder)
    if (free := found.f_bavail * found.f_frsize) < ROOM:
        return (
            f"the disk of {folder} is full: {free} bytes are free, and a case may need {ROOM}; "
            "make room, or set TMPDIR to a folder on another disk"
        )
    if found.f_files and found.f_favail < ROOM_FILES:  # file systems without a table say 0
        return (
            f"the disk of {folder} has room for {found.f_favail} more files, and a case may need "
            f"{ROOM_FILES}; make room, or set TMPDIR to a folder on another disk"
        )
    return ""


def why_no_space(details: Iterable[str], folders: Iterable[Path]) -> str:
    """Why a save failed for want of space; empty when it did not.

    Args:
        details: what the ranks said.
        folders: folders in which a save may keep files.
    """
    text = "\n".join(details)
    if any(words in text for words in _QUOTA):
        return "the disk quota is exceeded; make room, or set TMPDIR to a folder on another disk"
    if any(words in text for words in _FULL):
        for folder in folders:
            if folder.is_dir() and (lack := why_no_room(folder)):
                return lack
    return ""
