"""What is done about a save that was cut off, from what it left in the output folder."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from canonical_saver.errors import RequestError, describe
from canonical_saver.publishing.staging import (
    RECORD,
    RECORD_VERSION,
    STAGING,
    put_in_place,
    remove_empty,
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
            remove_empty(
                output.joinpath(*path.relative_to(staging).parts[1:])
                for path in staging.glob("*/**/")
                if path.parent != staging
            )
            shutil.rmtree(staging)
        return False
    folder, names, stale = _read(record)
    staged = [name for name in names if os.path.lexists(folder / name)]
    put_in_place(output, folder, staged, stale)
    return True


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
    if version != RECORD_VERSION:
        raise RequestError(
            f"expected a commit record of version {RECORD_VERSION}, found {version}: {record}; "
            "recover with the canonical-saver that wrote it"
        )
    if not inside:
        raise RequestError(
            f"expected names inside of the folder, found one that leads outside: {record}; the "
            "record is not of this saver: find out whose it is, then remove it"
        )
    return folder, names, stale


def _is_inside(name: str) -> bool:
    return not name.startswith("/") and ".." not in name.split("/")
