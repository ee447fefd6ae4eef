"""Other paths to the output folder than its own from the root."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from saver_conformance.cases.setting import Setting

_LINK = ".saver-conformance-link"
_MISSING = Path("runs", "first", "model")


def _from_here(folder: Path) -> Path:
    return Path(os.path.relpath(folder))


def _through_a_link(folder: Path) -> Path:
    link = folder.with_name(_LINK)
    folder.mkdir(exist_ok=True)
    with suppress(FileExistsError):
        link.symlink_to(folder, target_is_directory=True)
    return link


def _below_missing_folders(folder: Path) -> Path:
    deep = folder.parent / _MISSING
    with suppress(FileExistsError):  # for the suite, which looks for the model at ``folder``
        folder.symlink_to(deep, target_is_directory=True)
    return deep


RELATIVE = Setting(
    name="relative-output",
    place=50,
    text="`output_dir` in cfg is relative to the current folder",
    modes=("full-single", "full-zero3", "lora-fsdp2"),
    output=_from_here,
)

LINKED = Setting(
    name="linked-output",
    place=51,
    text="`output_dir` in cfg is a symbolic link to the folder",
    modes=("full-fsdp2", "lora-single", "lora-zero3"),
    output=_through_a_link,
)

MISSING_PARENTS = Setting(
    name="missing-parents",
    place=52,
    text="`output_dir` in cfg is a folder that does not exist, in folders that do not exist either",
    modes=("full-single", "full-fsdp2", "lora-zero3"),
    output=_below_missing_folders,
    content="nothing",
)
