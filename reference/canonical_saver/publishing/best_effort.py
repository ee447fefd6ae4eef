"""Files next to the weights, each of them complete in the staged folder or not there at all.

What is wrong with a tokenizer or a configuration must not cost the weights. It becomes a warning,
and what an earlier save left under the same name is named, so that it goes: a loader would take it
for the new one. What is wrong with the disk stays an error, since the weights need it as well.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from canonical_saver.file_io import files_below

_NO_LINKS = "expected files and folders only, found a link: {path.name}"


class BestEffort:
    """Writes files into a staged folder as far as that is possible.

    Args:
        folder: the staged folder.
        output_dir: where the files will lie in the end.

    Attributes:
        folder: the staged folder.
        output_dir: where the files will lie in the end.
        warnings: what could not be written, why, and what to do.
        outdated: files in the output folder that would be taken for those that could not be
            written, relative to it.
    """

    def __init__(self, folder: Path, output_dir: Path) -> None:
        self.folder, self.output_dir = folder, output_dir
        self.warnings: list[str] = []
        self.outdated: list[str] = []

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
            found = list(files_below(scratch, _NO_LINKS))
        except BaseException as error:
            from canonical_saver.publishing.failed_files import give_up

            return give_up(error, scratch, names, self)
        if beside:
            from canonical_saver.publishing.taken_names import without_taken

            found = without_taken(found, self, beside)
        for name in found:
            if "/" in name:
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (scratch / name).replace(self.folder / name)
        shutil.rmtree(scratch)
        return ""
