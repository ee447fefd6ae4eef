"""Files next to the weights that could not be written, and what lies in their places."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from canonical_saver.errors import describe
from canonical_saver.file_io import LOST

if TYPE_CHECKING:
    from canonical_saver.publishing.best_effort import BestEffort

_OF_RUST = re.compile(r"\(os error (\d+)\)")


def give_up(error: BaseException, scratch: Path, names: Sequence[str], staged: BestEffort) -> str:
    """Clean up after files that could not be written.

    Args:
        error: what went wrong.
        scratch: the folder that they were written to; removed.
        names: those that were to be written in any case, relative to the output folder.
        staged: where they were to go; gets what lies in their places.

    Returns:
        What went wrong, in one line.

    Raises:
        OSError: the file system refused a write.
        BaseException: the error, where somebody ends the process.
    """
    if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
        raise error
    _raise_of_disk(error, scratch)
    written = (p for p in sorted(scratch.rglob("*")) if p.is_file() and not p.is_symlink())
    missing = [*names, *(path.relative_to(scratch).as_posix() for path in written)]
    staged.outdated += [name for name in missing if _lies_there(staged.output_dir, name)]
    shutil.rmtree(scratch)
    return " ".join(describe(error).split())


def _lies_there(output_dir: Path, name: str) -> bool:
    """Whether a file of an earlier save would be taken for one that is missing."""
    path = output_dir / name
    below = path.parent != output_dir and path.parent.is_symlink()
    return os.path.lexists(path) and not below and (path.is_symlink() or not path.is_dir())


def _raise_of_disk(error: BaseException, folder: Path) -> None:
    """Raise an error again if it is one of the disk that is written to.

    One about a file elsewhere, which was to be copied, says nothing about this disk.
    """
    number = getattr(error, "errno", None) if isinstance(error, OSError) else None
    if number is None and (told := _OF_RUST.search(str(error))):
        number = int(told[1])
    if number not in LOST:
        return
    if not isinstance(error, OSError):
        raise OSError(number, str(error)) from error
    places = [Path(str(name)) for name in (error.filename, error.filename2) if name is not None]
    if not places or number == errno.ENOSPC or any(p.is_relative_to(folder) for p in places):
        raise error
