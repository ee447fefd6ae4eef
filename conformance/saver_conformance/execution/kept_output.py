"""Copies of the output folder before and after a save, for whoever wants to look into it."""

from __future__ import annotations

import shutil
from pathlib import Path

from saver_conformance.errors import KeepError

BEFORE, AFTER = "before", "after"
"""Names of the copies."""


class KeptOutput:
    """A folder with the copies ``BEFORE`` and ``AFTER``; of several saves the last are kept."""

    def __init__(self, folder: Path) -> None:
        """Make ``folder``.

        Raises:
            KeepError: it cannot be made, or holds something already.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if any(folder.iterdir()):
                raise KeepError(f"{folder} is not empty; name a new folder for the copies")
        except OSError as error:
            raise KeepError(f"copies cannot be kept in {folder}: {error.strerror}") from error
        self.folder = folder

    def keep(self, output: Path, name: str) -> None:
        """Copy what lies at ``output``, links as links; nothing when nothing lies there.

        Raises:
            KeepError: it cannot be copied.
        """
        copy = self.folder / name
        try:
            if copy.is_dir():
                shutil.rmtree(copy)  # the copy of a save before this one
            copy.unlink(missing_ok=True)
            if output.is_dir():
                shutil.copytree(output, copy, symlinks=True)
            elif output.exists():
                shutil.copy2(output, copy, follow_symlinks=False)
        except (OSError, shutil.Error) as error:
            raise KeepError(f"the output folder cannot be copied to {copy}: {error}") from error
