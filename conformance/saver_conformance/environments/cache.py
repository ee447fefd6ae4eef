"""Folders that are made once and kept: environments, layers over them, and the suite for both.

A folder counts only when it is marked as complete, which is the last thing that is done. Whoever
makes it holds a lock: of two runs that need it, one makes it and the other waits.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

COMPLETE = ".saver-conformance-complete"
"""The file that marks a folder as complete."""


def cache_folder() -> Path:
    """Where folders are kept: ``SAVER_CONFORMANCE_CACHE``, or below the user's cache."""
    if own := os.environ.get("SAVER_CONFORMANCE_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "saver-conformance"


def keep(kind: str, name: str, make: Callable[[Path], None]) -> Path:
    """The folder ``name`` of a kind, made by ``make`` unless a complete one is there.

    What an interrupted call left is removed first: it lies in a folder of the cache that has no
    mark.

    Args:
        kind: the folder of the cache that it lies in.
        name: its name there, the same for the same content.
        make: makes the folder that it is given, which does not exist yet.
    """
    place = cache_folder() / kind
    place.mkdir(parents=True, exist_ok=True)
    folder = place / name
    with (place / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / COMPLETE).is_file():
            if folder.exists():
                shutil.rmtree(folder)
            make(folder)
            (folder / COMPLETE).touch()
    return folder
