"""Whether a mount can do what a save ends with, found out before the weights are written."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from canonical_saver.errors import WriteError, describe
from canonical_saver.file_io import LOST, preallocate, pwrite_all

_OLD, _NEW = b"the old file", b"the new file"


def check_mount(folder: Path) -> None:
    """Write a tiny file out of order, and rename it from a subfolder over another one.

    A save writes each rank's bytes in place, and is put in its place by renaming.

    Args:
        folder: the staging folder; nothing is left in it.

    Raises:
        WriteError: the mount cannot do one of them.
        OSError: the disk is full, broken or read-only.
    """
    below = folder / secrets.token_hex(8)
    target, source = folder / f"{below.name}.target", below / "source"
    try:
        below.mkdir()
        _write_backwards(target, _OLD)
        _write_backwards(source, _NEW)
    except OSError as error:
        if error.errno in LOST:
            raise
        raise _refusal("can write a file at any place in it", folder, describe(error)) from error
    if (found := source.read_bytes()) != _NEW:
        raise _refusal("can write a file at any place in it", folder, f"{found!r} in a new file")
    try:
        source.replace(target)
        found = target.read_bytes()
    except OSError as error:
        if error.errno in LOST:
            raise
        raise _refusal("can rename a file over another one", folder, describe(error)) from error
    if found != _NEW or source.exists():
        raise _refusal("can rename a file over another one", folder, "that nothing was renamed")
    target.unlink()
    below.rmdir()


def _write_backwards(path: Path, content: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
    try:
        preallocate(handle, len(content))
        half = len(content) // 2
        pwrite_all(handle, [memoryview(content)[half:]], half)
        pwrite_all(handle, [memoryview(content)[:half]], 0)
    finally:
        os.close(handle)


def _refusal(able: str, folder: Path, found: str) -> WriteError:
    return WriteError(
        f"expected a file system that {able}, found {found}, in {folder}; nothing was changed, "
        "save to another file system and copy the folder"
    )
