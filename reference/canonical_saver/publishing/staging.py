"""All or nothing: from a staged folder to the model's own.

Everything is made in a hidden folder inside the output folder and flushed to disk. Then a record of
what is to happen is put next to it: this is the commit. Only then is the output folder changed, by
steps that can be done again from the record, whenever they were cut off: the files without which
nothing loads go first and come last, so a half-changed folder refuses to load. A whole model beside
an adapter is not touched: the adapter's configuration without its weights keeps ``transformers``
from loading either. Each step is on disk before the next begins. ``docs/concepts/crash-safety.md``
says what a reader sees after each.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from canonical_saver.errors import WriteError, describe
from canonical_saver.file_io import files_below, set_mode
from canonical_saver.file_io import flush_path as _flush

STAGING = ".canonical-saver-staging"
RECORD = "COMMIT.json"

RECORD_VERSION = 1

_GATES = re.compile(
    r".*\.index\.json|config\.json|tokenizer_config\.json|(pre)?processor_config\.json|\.metadata"
)
_ADAPTER_WEIGHTS = frozenset({"adapter_model.safetensors", "adapter_model.bin"})
_REST, _BOLT = 4, 5
_NOT_OURS = (
    "expected only files of this save, found something else: {path}; find out who put it there, "
    "then save again"
)
"""What to say of a staged path that is neither a file nor a folder."""


class Staging:
    """The hidden folder of one save; for rank 0.

    Its name is new for each save: a process that hangs on after its job was started anew must not
    find the new job's files where its own had been.

    Args:
        output_dir: the folder that becomes the saved model; made if it does not exist.

    Attributes:
        name: of the folder that files are staged in, relative to the output folder.
        folder: the same, with the output folder.

    Raises:
        RequestError: ``output_dir`` or the staging path is something else than a folder.
    """

    def __init__(self, output_dir: Path) -> None:
        missing = [path for path in (output_dir, *output_dir.parents) if not path.exists()]
        try:
            output_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            from canonical_saver.publishing.obstacles import refuse_place

            refuse_place(output_dir, error)
        for path in reversed(missing):
            _flush(path.parent)
        if os.path.lexists(output_dir / STAGING):  # of a save that was cut off
            from canonical_saver.publishing.recovery import recover

            recover(output_dir)
        self.output_dir = output_dir
        self.name = f"{STAGING}/{secrets.token_hex(8)}"
        self.folder = output_dir / self.name
        self._made = missing
        # For this user alone: nobody else can plant a link where a file will be opened.
        (output_dir / STAGING).mkdir(mode=0o700)
        try:
            self.folder.mkdir()
        except OSError:
            self.abandon()
            raise

    def staged(self) -> list[str]:
        """Name what is staged now, relative to the output folder.

        Raises:
            WriteError: something else than files and folders is there.
        """
        return sorted(files_below(self.folder, _NOT_OURS))

    def has_folder_alone(self) -> bool:
        """Whether nothing else lies in the output folder, which is a new one then."""
        return {path.name for path in self.output_dir.iterdir()} == {STAGING}

    def commit(self, stale: Iterable[str], mode: int) -> list[str]:
        """Make the staged files the model, and remove what is stale.

        Args:
            stale: files to remove if none is staged in their place, relative to the output folder.
            mode: permission bits of the files.

        Returns:
            The files of the model, relative to the output folder.

        Raises:
            WriteError: something is in the way of a file; or the new model is whole and committed,
                but could not be put in its place.
        """
        names = self.staged()
        if not self.has_folder_alone():
            from canonical_saver.publishing.obstacles import refuse_obstacles

            refuse_obstacles(self.output_dir, names)
        # What needs room on the disk is done before the commit.
        for place in sorted(folders_to(self.output_dir, names)):
            if not place.exists():
                place.mkdir()
                self._made.append(place)
        for name in names:
            path = self.folder / name
            set_mode(path, mode)
            _flush(path)
        staging = self.output_dir / STAGING
        _flush_above(self.folder, names)
        _flush(staging)
        _flush_above(self.output_dir, names)
        draft = self.folder / f"{RECORD}.draft"
        gone = [name for name in stale if name not in names]
        record = {"version": RECORD_VERSION, "folder": self.folder.name}
        draft.write_text(json.dumps(record | {"files": names, "remove": gone}, indent=2))
        _flush(draft)
        draft.replace(staging / RECORD)
        try:
            _flush(staging)
            put_in_place(self.output_dir, self.folder, names, gone)
        except OSError as error:
            raise WriteError(
                f"the new model is complete in {staging}, but could not be put in its place "
                f"({describe(error)}); remove the cause, then save again or run: "
                f"canonical-saver recover {self.output_dir}"
            ) from error
        return names

    def abandon(self) -> None:
        """Remove what was staged, unless it is committed; never raises."""
        staging = self.output_dir / STAGING
        if not os.path.lexists(staging / RECORD):
            shutil.rmtree(self.folder, ignore_errors=True)
            with suppress(OSError):
                staging.rmdir()
            with suppress(OSError):
                remove_empty(self._made)


def put_in_place(output: Path, folder: Path, staged: Sequence[str], stale: Sequence[str]) -> None:
    """Change the output folder as a commit record says; may be done again when it was cut off.

    Args:
        output: the output folder.
        folder: where the files are staged.
        staged: those that are still there. A gate that no longer is, is the new one already.
        stale: files that go.
    """

    def of(names: Sequence[str], *kinds: int) -> list[str]:
        return [name for name in names if _gate(name) in kinds]

    closing = [*staged, *stale]
    _remove(output, of(closing, 0))
    _move(folder, output, of(staged, _BOLT))
    for depth in (1, 2, 3):
        _remove(output, of(closing, depth))
    _remove(output, of(stale, _REST))
    for depth in (_REST, 3, 2):
        _move(folder, output, of(staged, depth))
    _remove(output, of(stale, _BOLT))
    for depth in (1, 0):
        _move(folder, output, of(staged, depth))
    remove_empty(folders_to(output, stale))
    (output / STAGING / RECORD).unlink()
    _flush(output / STAGING)
    shutil.rmtree(output / STAGING)


def _gate(name: str) -> int:
    """How far inside a gate is: the one at 0 closes first and opens last; or the bolt, or no gate.

    The bolt keeps ``transformers`` from loading a whole model beside an adapter that is replaced.
    """
    folder, _, last = name.rpartition("/")
    if last in _ADAPTER_WEIGHTS:
        return 2 if folder else 0
    if name == "adapter_config.json":
        return _BOLT
    if name == "config.json":
        return 1
    return 3 if _GATES.fullmatch(last) else _REST


def _remove(output: Path, names: Sequence[str]) -> None:
    for name in names:
        (output / name).unlink(missing_ok=True)
    _flush_above(output, names)


def folders_to(output: Path, names: Iterable[str]) -> set[Path]:
    """The folders below the output folder on the way to some files."""
    return {output / above for name in names for above in Path(name).parents} - {output}


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove those of some folders that are empty, the innermost first."""
    for folder in sorted(folders, key=lambda path: len(path.parts), reverse=True):
        if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
            folder.rmdir()


def _move(staged: Path, output: Path, names: Sequence[str]) -> None:
    for name in names:
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (staged / name).replace(output / name)
    _flush_above(output, names)


def _flush_above(output: Path, names: Iterable[str]) -> None:
    """Have the names of some files on the disk, and those of the folders on the way to them."""
    for folder in {output / above for name in names for above in Path(name).parents}:
        if folder.is_dir():
            _flush(folder)
