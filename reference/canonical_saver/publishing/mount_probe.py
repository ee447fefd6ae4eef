"""Whether a mount can do what a save ends with, found out before the weights are written."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from canonical_saver.errors import WriteError, describe
from canonical_saver.file_io import LOST, create_file

_OLD, _NEW = b"the old file", b"the new file"
_WRITES = "can write a file at any place in it"
_RENAMES = "can rename a file over another one"


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
    half = len(_NEW) // 2
    with _needed(_WRITES, folder):
        below.mkdir()
        for path, content in ((target, _OLD), (source, _NEW)):
            create_file(path, len(content), (half, content[half:]), (0, content[:half]))
    if (found := source.read_bytes()) != _NEW:
        raise _refusal(_WRITES, folder, f"{found!r} in a new file")
    with _needed(_RENAMES, folder):
        source.replace(target)
        found = target.read_bytes()
    if found != _NEW or source.exists():
        raise _refusal(_RENAMES, folder, "that nothing was renamed")
    target.unlink()
    below.rmdir()


@contextmanager
def _needed(able: str, folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in LOST:
            raise
        raise _refusal(able, folder, describe(error)) from error


def _refusal(able: str, folder: Path, found: str) -> WriteError:
    return WriteError(
        f"expected a file system that {able}, found {found}, in {folder}; nothing was changed, "
        "save to another file system and copy the folder"
    )
