"""The links in a cache of the Hugging Face Hub, the only ones that are followed.

A repository lies there as ``models--ORG--NAME/snapshots/REVISION/FILE``, where a file is a link to
``models--ORG--NAME/blobs/DIGEST``. Nothing else about such a folder is trusted: a link has to lead
to a regular file that lies directly in the ``blobs`` of its own repository.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

_MAX_DEPTH = 3
"""Folders between a snapshot's own and that of a file: named adapters, parts of a pipeline."""


def blob_of(path: Path) -> Path | None:
    """The blob that the link at ``path`` leads to; None for other links, and for what is none."""
    try:
        target = path.readlink()
        folder = path.parent.resolve()
    except (OSError, RuntimeError):  # what is no link, and links that lead in a circle
        return None
    blob = Path(os.path.normpath(folder / target))
    for snapshots in folder.parents[:_MAX_DEPTH]:
        if snapshots.name == "snapshots" and blob.parent == snapshots.parent / "blobs":
            return blob if _is_folder(blob.parent) and _is_regular(blob) else None
    return None


def _is_folder(path: Path) -> bool:
    return stat.S_ISDIR(_mode(path))


def _is_regular(path: Path) -> bool:
    return stat.S_ISREG(_mode(path))


def _mode(path: Path) -> int:
    try:
        return path.lstat().st_mode
    except OSError:
        return 0
