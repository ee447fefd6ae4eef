"""What a folder holds: a whole model, an adapter, both, or further folders that hold them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from saver_conformance.cases.case import Case
from saver_conformance.folder.layout import ADAPTER, ADAPTER_CONFIG, CONFIG
from saver_conformance.folder_check import formats
from saver_conformance.folder_check.folder import ADAPTER_CASE, WHOLE_CASE, Folder, list_names
from saver_conformance.observation.observation import Entry

_MAX_FOLDERS = 1000


@dataclass(frozen=True, slots=True)
class Parts:
    """What a folder holds.

    Attributes:
        folders: the folder itself and those in it, each taken for what it is: a folder that holds a
            model and an adapter comes twice.
        skipped: names of folders in it that hold weights and are not looked at.
    """

    folders: tuple[Folder, ...]
    skipped: tuple[str, ...]


def parts_of(root: Path) -> Parts:
    """What ``root`` holds.

    An adapter with a name lies in a folder of its own, and so does each part of a pipeline, which
    has no weights outside of them.

    Raises:
        OSError: ``root`` cannot be listed.
    """
    listing = list_names(root)
    inside = _folders_with_weights(root, listing)
    own = tuple(_cases(listing))
    parts: dict[str, Case] = {}
    for name, names in inside.items():
        if formats.is_adapter(names):
            parts[name] = ADAPTER_CASE
        elif not own and CONFIG in names:
            parts[name] = WHOLE_CASE
    skipped = {name: names for name, names in inside.items() if name not in parts}
    if not own and not parts:
        own = (WHOLE_CASE,)
    return Parts(
        folders=(
            *(Folder(root, "", case, listing, skipped) for case in own),
            *(Folder(root, name, case, inside[name]) for name, case in parts.items()),
        ),
        skipped=tuple(skipped),
    )


def _cases(names: Collection[str]) -> Iterator[Case]:
    """What the files with these names are taken for."""
    adapter = formats.is_adapter(names)
    if adapter:
        yield ADAPTER_CASE
    # Beside an adapter a file of another name is no model: trainers put value heads there.
    if formats.has_whole_model(names) or (not adapter and formats.has_safetensors(names)):
        yield WHOLE_CASE


def _folders_with_weights(root: Path, listing: Mapping[str, Entry]) -> dict[str, dict[str, Entry]]:
    names = (name for name, entry in listing.items() if entry.kind == "folder")
    found: dict[str, dict[str, Entry]] = {}
    for name in islice(filter(formats.may_hold_a_save, names), _MAX_FOLDERS):
        try:
            inside = list_names(root / name)
        except OSError:
            continue  # of somebody else, who lets nobody look into it
        of_adapter = {ADAPTER, ADAPTER_CONFIG} & set(inside)
        if of_adapter or formats.unread(inside) or formats.has_safetensors(inside):
            found[name] = inside
    return found
