"""Machines that share no disk, on one machine: one path that leads to another folder on each.

``/proc/self/cwd`` is the working directory of whoever looks. It needs no rights, which a mount
would.
"""

from __future__ import annotations

import os
from pathlib import Path

_OUTPUT = Path("/proc/self/cwd", "out")


def enter(folder: Path, first: int) -> Path:
    """Make the disk of a machine the working directory, and give the path of the output folder.

    Args:
        folder: the case's scratch folder, which is the disk of the first machine.
        first: the lowest rank on this machine.
    """
    disk = _disk(folder, first)
    disk.mkdir(exist_ok=True)
    os.chdir(disk)
    return _OUTPUT


def bring(folder: Path) -> bool:
    """Put the model in its place in ``folder`` if only another machine has it.

    Which machine writes is up to the saver, as long as one of them has all of it.

    Returns:
        Whether another machine's folder took the place.
    """
    output = folder / _OUTPUT.name
    if output.is_dir() and any(output.iterdir()):
        return False
    for other in sorted(folder.glob(_disk(folder, "*").name)):
        saved = other / _OUTPUT.name
        if saved.is_dir() and any(saved.iterdir()):
            if output.is_dir():
                output.rmdir()
            saved.rename(output)
            return True
    return False


def _disk(folder: Path, first: int | str) -> Path:
    return folder if first == 0 else folder / f"disk-{first}"
