"""Files next to the weights, each of them complete in the staged folder or not there at all.

What is wrong with a tokenizer or a configuration must not cost the weights. It becomes a warning,
and what an earlier save left under the same name is named, so that it goes: a loader would take it
for the new one. What is wrong with the disk stays an error, since the weights need it as well.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from canonical_saver.errors import WriteError, describe
from canonical_saver.file_io import LOST

_OF_RUST = re.compile(r"\(os error (\d+)\)")


class BestEffort:
    """Writes files into a staged folder as far as that is possible.

    Args:
        folder: the staged folder.

    Attributes:
        folder: the same.
        warnings: what could not be written, why, and what to do.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.warnings: list[str] = []
        self._missing: list[str] = []

    def warn(self, text: str) -> None:
        """Put a warning into the report, from where it goes to the log."""
        self.warnings.append(text)

    def attempt(self, write: Callable[[Path], object], *names: str, beside: str = "") -> str:
        """Have some files written, all of them or none.

        Args:
            write: writes them into the folder that it is given, an empty one.
            names: those that it writes in any case, relative to the folder.
            beside: who writes them, if it must not bring weights, nor what is staged by now.

        Returns:
            What went wrong, in one line; empty if nothing did.

        Raises:
            OSError: the file system refused a write.
        """
        scratch = self.folder / secrets.token_hex(8)
        scratch.mkdir()
        try:
            write(scratch)
            found = _files(scratch)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
                raise
            _raise_of_disk(error, scratch)
            self._missing += [*names, *_files(scratch, strict=False)]
            shutil.rmtree(scratch)
            return " ".join(describe(error).split())
        if beside:
            from canonical_saver.publishing.taken_names import without_taken

            found = without_taken(found, self, beside)
        for name in found:
            if "/" in name:
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (scratch / name).replace(self.folder / name)
        shutil.rmtree(scratch)
        return ""

    def outdated(self, output_dir: Path) -> list[str]:
        """Name the files of an earlier save that would be taken for those that are missing.

        Args:
            output_dir: the output folder.
        """
        found = []
        for name in self._missing:
            path = output_dir / name
            below = path.parent != output_dir and path.parent.is_symlink()
            if os.path.lexists(path) and not below and (path.is_symlink() or not path.is_dir()):
                found.append(name)
        return found


def _files(folder: Path, *, strict: bool = True) -> list[str]:
    """Name the files in a folder and its subfolders, in order."""
    names: list[str] = []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_dir(follow_symlinks=False):
                below = _files(folder / entry.name, strict=strict)
                names += [f"{entry.name}/{name}" for name in below]
            elif entry.is_file(follow_symlinks=False):
                names.append(entry.name)
            elif strict:
                raise WriteError(f"expected files and folders only, found a link: {entry.name}")
    return names


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
