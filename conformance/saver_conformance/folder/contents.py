"""What the files of a folder hold, read while others may still be at work there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from saver_conformance.folder.layout import digest


def read_contents(folder: Path) -> Mapping[str, str]:
    """The size and digest of each regular file below ``folder``, by relative POSIX path, in words.

    A file or a folder that vanishes meanwhile is left out; links are not followed.
    """
    found: dict[str, str] = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            try:
                # The size first: a file that grows has then too few bytes for its digest, or more.
                size = path.lstat().st_size
                found[path.relative_to(folder).as_posix()] = describe(size, digest(path))
            except OSError:
                continue
    return found


def describe(size: int, sha256: str) -> str:
    """What a file holds, in words."""
    return f"{size} bytes, sha256 {sha256}"
