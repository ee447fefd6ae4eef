"""What is in the way of a save: in the place of its folder, or in one that has files already."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from canonical_saver.errors import RequestError, WriteError
from canonical_saver.publishing.staging import STAGING, folders_to

_NO_FOLDER = (errno.EEXIST, errno.ENOTDIR, errno.ELOOP)


def refuse_place(output_dir: Path, refused: OSError) -> NoReturn:
    """Say what is in the place of the output folder, or of one that it is to lie in.

    Args:
        output_dir: the output folder.
        refused: why it could not be made.

    Raises:
        RequestError: something else than a folder is there.
        OSError: the error, of any other cause.
    """
    if refused.errno not in _NO_FOLDER:
        raise refused
    places = (output_dir, *output_dir.parents)
    path = next((p for p in places if os.path.lexists(p) and not p.is_dir()), output_dir)
    found = "a link that leads nowhere" if not path.exists() else "a file"
    raise RequestError(
        f"output_dir: expected a folder, found {found}: {path}; remove it, or name another"
    ) from refused


def refuse_obstacles(output_dir: Path, names: Sequence[str]) -> None:
    """Find out before the commit what could not be undone after it.

    Args:
        output_dir: the output folder.
        names: the files that come, relative to it.

    Raises:
        WriteError: something else than a file is in the place of one of them.
    """
    device = (output_dir / STAGING).stat().st_dev
    for name in names:
        if (output_dir / name).is_dir():
            raise WriteError(
                f"expected a place for a file, found a folder, please move it: {output_dir / name}"
            )
    for place in sorted(folders_to(output_dir, names)):
        if not os.path.lexists(place):
            continue
        if place.is_symlink() or not place.is_dir():
            raise WriteError(f"expected a folder, found a file or a link, please move it: {place}")
        if place.stat().st_dev != device:
            raise WriteError(
                f"expected one file system, found another in {place}; unmount it, or "
                "save to another folder"
            )
