"""FILES: whether a loader finds what it looks for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from saver_conformance.folder.layout import (
    ADAPTER,
    ADAPTER_CONFIG,
    CONFIG,
    INDEX,
    SINGLE,
    Index,
    UnreadableJsonError,
    read_index,
)
from saver_conformance.folder_check import formats
from saver_conformance.folder_check.folder import Folder
from saver_conformance.folder_check.registry import Remark, folder_check
from saver_conformance.observation.finding import Defect
from saver_conformance.safe_text import quoted

_SHOWN_NAMES = 20


@folder_check("FILES-001")
def weights_are_found(folder: Folder) -> Iterator[Defect | Remark]:
    """There are weights that ``from_pretrained`` finds, and every shard that an index names."""
    if folder.has_weights:
        yield from _shards(folder)
    elif unread := formats.unread(folder.listing):
        yield from _unread(folder, unread)
    elif unusual := formats.unusual(folder.listing):
        yield from _unusual(folder, unusual)
    elif exported := [name for name, inside in folder.folders.items() if formats.unread(inside)]:
        yield Remark(f"weights in other formats, which are not read, in {_some(exported)}")
    else:
        expected = f"weights, in {SINGLE} or in shards with an index"
        yield folder.defect(expected, _some(list(folder.listing)) or "nothing")


@folder_check("FILES-002")
def adapter_is_found(folder: Folder) -> Iterator[Defect | Remark]:
    """Weights and configuration of an adapter lie side by side."""
    has_weights = ADAPTER in folder.listing or formats.PICKLED_ADAPTER in folder.listing
    if not has_weights:
        found = f"{ADAPTER_CONFIG} without weights"
        yield folder.defect(ADAPTER, found, file=ADAPTER)
    if ADAPTER_CONFIG not in folder.listing:
        found = "an adapter's weights without a configuration"
        yield folder.defect(ADAPTER_CONFIG, found, file=ADAPTER_CONFIG)


@folder_check("FILES-003")
def one_whole_model(folder: Folder) -> Iterator[Defect | Remark]:
    """No single file lies beside shards: one loader takes the one, another the others.

    An adapter beside a whole model is a layout that ``transformers`` supports, and ``mlx-lm``
    writes an index for a single file.
    """
    if folder.is_adapter or SINGLE not in folder.own_files:
        return
    others = [name for name in folder.own_files if name not in (SINGLE, INDEX)]
    named = set(folder.index.weight_map.values()) if folder.index else set()
    if others or named - {SINGLE}:
        found = ", ".join([SINGLE, *others[:_SHOWN_NAMES]])
        more = f" and an index of {len(named)} files" if named else ""
        yield folder.defect("one weight layout", f"{found}{more}")


@folder_check("FILES-004")
def pickles_are_named(folder: Folder) -> Iterator[Defect | Remark]:
    """Pickled weights are told, and not opened."""
    pickles = [
        name
        for name in folder.listing
        if formats.PICKLED.fullmatch(name) and name.startswith("adapter_model") == folder.is_adapter
    ]
    if pickles:
        beside = "; loaders prefer the safe ones" if folder.has_weights else ""
        yield Remark(f"pickled weights, which are not read: {_some(pickles)}{beside}")


@folder_check("FILES-006")
def adapter_beside_a_model(folder: Folder) -> Iterator[Defect | Remark]:
    """An adapter beside a whole model is told: ``transformers`` puts it on top of the model."""
    if ADAPTER_CONFIG in folder.listing and formats.is_adapter(folder.listing):
        text = "an adapter lies next to a whole model; transformers loads it on top"
        yield Remark(text, file=folder.path_of(ADAPTER_CONFIG))


@folder_check("FILES-012")
def no_model_config_beside_adapter(folder: Folder) -> Iterator[Defect | Remark]:
    """There is no ``config.json`` beside an adapter, unless the model's weights are there too."""
    if CONFIG in folder.listing and not formats.has_whole_model(folder.listing):
        yield folder.defect("no configuration of a model", "one", file=CONFIG)


def _shards(folder: Folder) -> Iterator[Defect | Remark]:
    if folder.index is not None:  # FORMAT-004 has one that cannot be read
        yield from _missing_shards(folder, folder.index, INDEX)
    if INDEX not in folder.own_files and SINGLE not in folder.own_files:
        expected = f"{INDEX}, without which shards are not found"
        yield folder.defect(expected, "shards alone", file=INDEX)


def _missing_shards(folder: Folder, index: Index, file: str) -> Iterator[Defect | Remark]:
    """The files that the index in ``file`` names and that are not there."""
    for name in sorted(set(index.weight_map.values())):
        if name in folder.listing:
            continue
        if _lies_inside(folder, name):
            text = "a shard in another folder, which is not looked at"
            yield Remark(text, file=folder.path_of(name))
            continue
        expected = f"{quoted(name)}, which the index names"
        yield folder.defect(expected, "no such file in the folder", file=file)


def _lies_inside(folder: Folder, name: str) -> bool:
    """Whether a file of this path lies in a folder below, reached without a link."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or len(path.parts) < 2:
        return False
    places = [folder.folder / part for part in path.parents if part.parts]
    try:
        return not any(place.is_symlink() for place in places) and (folder.folder / path).is_file()
    except (OSError, ValueError):  # of names that are too long, or no file's
        return False


def _unread(folder: Folder, unread: dict[str, str]) -> Iterator[Defect | Remark]:
    empty = [name for name in unread if folder.listing[name].size == 0]
    if len(empty) == len(unread):
        yield folder.defect("weights", "no byte in it", file=empty[0])
        return
    if formats.PICKLED_INDEX in folder.listing:
        try:
            index = read_index(folder.folder / formats.PICKLED_INDEX)
        except UnreadableJsonError as error:
            expected = "an index of the shards"
            yield folder.defect(expected, str(error), file=formats.PICKLED_INDEX)
        else:
            yield from _missing_shards(folder, index, formats.PICKLED_INDEX)
    for words in sorted(set(unread.values()) - {formats.PICKLED_WORDS}):
        names = [name for name in unread if unread[name] == words]
        yield Remark(f"{words}, which are not read: {_some(names)}")


def _unusual(folder: Folder, names: tuple[str, ...]) -> Iterator[Defect | Remark]:
    told = _some(names)
    if all(map(formats.RANK_SHARD.fullmatch, names)):
        told = f"shards of ranks, which only torch.distributed.checkpoint loads: {told}"
    explicit = folder.settings.get("transformers_weights")
    if explicit in names:
        yield Remark(f"weights under the name that {CONFIG} gives, which are not looked at: {told}")
    elif any(map(formats.is_variant, names)):
        yield Remark(f"weights of a variant, which a loader has to be asked for: {told}")
    elif "model_type" in folder.settings:
        expected = f"{SINGLE}, or shards and {INDEX}"
        yield folder.defect(expected, f"weights under other names: {told}")
    else:
        yield Remark(f"weights under names that no loader finds by itself: {told}")


def _some(names: list[str] | tuple[str, ...]) -> str:
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return ", ".join(names[:_SHOWN_NAMES]) + more
