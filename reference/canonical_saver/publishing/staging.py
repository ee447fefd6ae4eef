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

from canonical_saver.errors import RequestError, SaveError, WriteError, describe
from canonical_saver.file_io import flush_path as _flush
from canonical_saver.file_io import set_mode

STAGING = ".canonical-saver-staging"
RECORD = "COMMIT.json"

_VERSION = 1

_GATES = re.compile(
    r".*\.index\.json|config\.json|tokenizer_config\.json|(pre)?processor_config\.json|\.metadata"
)
_ADAPTER_WEIGHTS = frozenset({"adapter_model.safetensors", "adapter_model.bin"})
_ADAPTER_CONFIG = "adapter_config.json"


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
        missing = _missing(output_dir)
        output_dir.mkdir(parents=True, exist_ok=True)
        for path in missing:
            _flush(path.parent)
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
        return sorted(_staged(self.folder))

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
        self._check_places(names)
        # What needs room on the disk is done before the commit.
        for place in sorted(_places(self.output_dir, names)):
            if not place.exists():
                place.mkdir()
                self._made.append(place)
        for name in names:
            path = self.folder / name
            set_mode(path, mode)
            _flush(path)
        staging = self.output_dir / STAGING
        for folder in {self.folder, *(path for path in self.folder.rglob("*") if path.is_dir())}:
            _flush(folder)
        for folder in {staging, self.output_dir, *_places(self.output_dir, names)}:
            _flush(folder)
        draft = self.folder / f"{RECORD}.draft"
        gone = [name for name in stale if name not in names]
        record = {"version": _VERSION, "folder": self.folder.name, "files": names, "remove": gone}
        draft.write_text(json.dumps(record, indent=2))
        _flush(draft)
        draft.replace(staging / RECORD)
        try:
            _flush(staging)
            recover(self.output_dir)
        except (OSError, SaveError) as error:
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
                _remove_empty(self._made)

    def _check_places(self, names: Sequence[str]) -> None:
        """Find out before the commit what could not be undone after it."""
        device = self.folder.stat().st_dev
        for name in names:
            if (self.output_dir / name).is_dir():
                raise WriteError(
                    "expected a place for a file, found a folder, please move it: "
                    f"{self.output_dir / name}"
                )
        for place in sorted(_places(self.output_dir, names)):
            if not os.path.lexists(place):
                continue
            if place.is_symlink() or not place.is_dir():
                raise WriteError(
                    f"expected a folder, found a file or a link, please move it: {place}"
                )
            if place.stat().st_dev != device:
                raise WriteError(
                    f"expected one file system, found another in {place}; unmount it, or "
                    "save to another folder"
                )


def recover(output_dir: str | Path) -> bool:
    """Finish or undo a save that was cut off.

    A save that was committed is finished; one that was not leaves the folder as it was before. Not
    to be called while a save into the folder is running.

    Args:
        output_dir: the folder of the saved model.

    Returns:
        Whether a committed save was finished.

    Raises:
        RequestError: there is no such folder, or the staging path is not a folder of ours.

    Examples:
        >>> recover(folder)  # no save was cut off here
        False
    """
    output = Path(output_dir)
    if not output.is_dir():
        found = "something else" if os.path.lexists(output) else "none"
        raise RequestError(f"expected the folder of a saved model, found {found}: {output}")
    staging = output / STAGING
    if staging.is_symlink() or (staging.exists() and not staging.is_dir()):
        raise RequestError(f"expected a folder, found something else, please remove: {staging}")
    record = staging / RECORD
    if not os.path.lexists(record):
        if staging.exists():
            # The save may have come as far as making their places.
            _remove_empty(
                output.joinpath(*path.relative_to(staging).parts[1:])
                for path in staging.glob("*/**/")
                if path.parent != staging
            )
            shutil.rmtree(staging)
        return False
    folder, names, stale = _read(record)
    staged = [name for name in names if os.path.lexists(folder / name)]
    # A gate that is no longer staged is the new one already.
    closing = [*staged, *stale]
    bolt = [name for name in closing if name == _ADAPTER_CONFIG]
    _remove(output, [name for name in closing if _gate(name) == 0])
    _move(folder, output, [name for name in bolt if name in staged])
    for depth in (1, 2, 3):
        _remove(output, [name for name in closing if _gate(name) == depth])
    _remove(output, [name for name in stale if _gate(name) is None and name not in bolt])
    staged = [name for name in staged if name not in bolt]
    _move(folder, output, [name for name in staged if _gate(name) is None])
    for depth in (3, 2):
        _move(folder, output, [name for name in staged if _gate(name) == depth])
    _remove(output, [name for name in bolt if name in stale])
    for depth in (1, 0):
        _move(folder, output, [name for name in staged if _gate(name) == depth])
    _remove_empty(_places(output, stale))
    record.unlink()
    _flush(staging)
    shutil.rmtree(staging)
    return True


def _gate(name: str) -> int | None:
    """How far inside a gate is: the one at 0 closes first and opens last; None is no gate."""
    folder, _, last = name.rpartition("/")
    if last in _ADAPTER_WEIGHTS:
        return 2 if folder else 0
    if name == "config.json":
        return 1
    return 3 if _GATES.fullmatch(last) else None


def _missing(output_dir: Path) -> list[Path]:
    """Name the folders that are yet to be made, the outermost first.

    Raises:
        RequestError: something else is where one of them would be.
    """
    missing: list[Path] = []
    for path in (output_dir, *output_dir.parents):
        if path.is_dir():
            break
        if os.path.lexists(path):
            found = "a link that leads nowhere" if not path.exists() else "a file"
            raise RequestError(
                f"output_dir: expected a folder, found {found}: {path}; remove it, or name another"
            )
        missing.insert(0, path)
    return missing


def _read(record: Path) -> tuple[Path, list[str], list[str]]:
    """Read a commit record: where the files are staged, which come, and which go."""
    try:
        plan = json.loads(record.read_text())
        version, names, stale = plan["version"], plan["files"], plan["remove"]
        folder = record.parent / plan["folder"]
        inside = all(_is_inside(name) for name in (plan["folder"], *names, *stale))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise RequestError(
            f"expected a commit record, found something else ({describe(error)}): {record}; a save "
            "was cut off while its files were put in their place, and the rest of them are next to "
            "the record: move them by hand, or remove the folder and save again"
        ) from error
    if version != _VERSION:
        raise RequestError(
            f"expected a commit record of version {_VERSION}, found {version}: {record}; recover "
            "with the canonical-saver that wrote it"
        )
    if not inside:
        raise RequestError(
            f"expected names inside of the folder, found one that leads outside: {record}; the "
            "record is not of this saver: find out whose it is, then remove it"
        )
    return folder, names, stale


def _staged(folder: Path) -> list[str]:
    """Name the files of a staging folder; nothing else than files and folders may be there."""
    names = []
    for path in folder.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise WriteError(
                f"expected only files of this save, found something else: {path}; find out who put "
                "it there, then save again"
            )
        if path.is_file():
            names.append(path.relative_to(folder).as_posix())
    return names


def _is_inside(name: str) -> bool:
    return not name.startswith("/") and ".." not in name.split("/")


def _remove(output: Path, names: Sequence[str]) -> None:
    for name in names:
        (output / name).unlink(missing_ok=True)
    for folder in {(output / name).parent for name in names}:
        if folder.is_dir():
            _flush(folder)


def _places(output: Path, names: Iterable[str]) -> set[Path]:
    """The folders below the output folder on the way to some files."""
    return {output / above for name in names for above in Path(name).parents} - {output}


def _remove_empty(folders: Iterable[Path]) -> None:
    """Remove those of some folders that are empty, the innermost first."""
    for folder in sorted(folders, key=lambda path: len(path.parts), reverse=True):
        if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
            folder.rmdir()


def _move(staged: Path, output: Path, names: Sequence[str]) -> None:
    for name in names:
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (staged / name).replace(output / name)
    for folder in {(output / name).parent for name in names} | _places(output, names):
        _flush(folder)
        if folder != output:
            _flush(output)
