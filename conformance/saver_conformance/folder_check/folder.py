"""A folder on disk as the checks look at it, without the training that it comes from."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Mapping
from functools import cache, cached_property
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

from saver_conformance.cases.case import Adapter, Case, Mode
from saver_conformance.checks.evidence import BlockedError, Evidence
from saver_conformance.folder.hub_cache import blob_of
from saver_conformance.folder.layout import (
    INDEX,
    Index,
    SavedWeights,
    UnreadableJsonError,
    belongs_to_save,
    kind_of,
    layout_of,
    read_index,
    read_weights,
)
from saver_conformance.folder.safetensors import Header
from saver_conformance.observation.observation import Entry, Expectation, Observation

WHOLE_CASE = Case(Mode("full", "single"))
ADAPTER_CASE = Case(Mode("lora", "single"), adapter=Adapter())
"""What a folder is taken for; of the cases only whether they are an adapter's is looked at."""

QUANTIZED_SETTINGS = ("quantization_config", "quantization", "compression_config")
# Tensors that take the place of a weight: GPTQ and AWQ, bitsandbytes, compressed-tensors, HQQ.
QUANTIZED_TENSORS = (
    ".qweight",
    ".qzeros",
    ".scales",
    ".SCB",
    ".absmax",
    ".quant_map",
    ".weight_packed",
    ".weight_scale",
    ".weight_scale_inv",
    ".W_q",
)


def list_names(folder: Path) -> dict[str, Entry]:
    """Everything that lies directly in ``folder``; nothing is opened.

    A link of a hub cache counts as the file that it leads to, any other link as a link.

    Raises:
        OSError: the folder cannot be listed.
    """
    entries: dict[str, Entry] = {}
    with os.scandir(folder) as items:
        for item in items:
            try:
                status = item.stat(follow_symlinks=False)
                if item.is_symlink() and (blob := blob_of(folder / item.name)):
                    status = blob.lstat()
            except FileNotFoundError:
                continue  # removed since the folder was listed
            mode = stat.S_IMODE(status.st_mode)
            entries[item.name] = Entry(kind_of(status.st_mode), mode, status.st_size)
    return dict(sorted(entries.items()))


class Folder(Evidence):
    """One folder, taken for a whole model or for an adapter.

    Attributes:
        listing: everything that lies directly in it, by name.
        shards: names of the files in it that its index names.
        folders: what lies in the folders in it that hold weights and are not looked at, by name.
    """

    def __init__(
        self,
        root: Path,
        place: str,
        case: Case,
        listing: Mapping[str, Entry],
        folders: Mapping[str, Collection[str]] = MappingProxyType({}),
    ) -> None:
        """Look at the folder ``place`` below ``root``; an empty one is ``root`` itself."""
        self.listing = listing
        self.folders = folders
        self.shards = _named_files(root / place, self.listing)
        prefix = f"{place}/" if place else ""
        saved = {
            f"{prefix}{name}": entry
            for name, entry in self.listing.items()
            if belongs_to_save(name) or name in self.shards
        }
        observation = Observation(
            case=case,
            expected=Expectation(tensors={}, folder=place),
            outcomes=(),
            folder=root,
            before={},
            after=saved,
            umask=0,
            reload=None,
        )
        super().__init__(observation, observation.expected)

    @property
    def is_adapter(self) -> bool:
        """Whether the folder is taken for an adapter's."""
        return self.case.mode.is_adapter

    @cached_property
    def saved(self) -> SavedWeights:
        """All safe weights that lie in the folder, under usual names or those of the index."""
        return read_weights(self.folder, self.shards)

    @cached_property
    def own_files(self) -> tuple[str, ...]:
        """The weight files that a loader of this kind of save takes."""
        if self.is_adapter:
            return tuple(name for name in self.after if layout_of(name) == "adapter")
        whole = ("single", "sharded")
        return tuple(name for name in self.after if layout_of(name) in whole or name in self.shards)

    @property
    def has_weights(self) -> bool:
        """Whether there is a safetensors file for a loader of this kind of save."""
        return any(name != INDEX for name in self.own_files)

    @property
    def index(self) -> Index | None:
        """The index of the shards, if there is a readable one."""
        return self.saved.index

    @property
    def indexed(self) -> Mapping[str, Header]:
        """The headers of the files that the index is about: those that it names, and shards."""
        return {
            name: header
            for name, header in self.headers.items()
            if name in self.shards or layout_of(name) == "sharded"
        }

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """``config.json``; empty where there is no readable one."""
        try:
            return self.config
        except BlockedError:
            return MappingProxyType({})

    @property
    def is_known_to_transformers(self) -> bool:
        """Whether the model's class is one of ``transformers``, not one that somebody registered.

        Anybody may call modules like a wrapper's or PEFT's; ``transformers`` does not.
        """
        model_type = self.settings.get("model_type")
        is_listed = isinstance(model_type, str) and model_type in _model_types()
        return is_listed and "auto_map" not in self.settings

    @cached_property
    def is_quantized(self) -> bool:
        """Whether shapes and dtypes are those of a quantized model."""
        if any(self.settings.get(key) is not None for key in QUANTIZED_SETTINGS):
            return True
        return any(name.endswith(QUANTIZED_TENSORS) for name in self.file_of)


@cache
def _model_types() -> frozenset[str]:
    """The model types of ``transformers`` 5.23, which need not be installed here."""
    source = resources.files("saver_conformance.folder_check").joinpath("model_types.txt")
    return frozenset(source.read_text(encoding="utf-8").split())


def _named_files(folder: Path, listing: Mapping[str, Entry]) -> frozenset[str]:
    """The names in the index of files that lie in the folder itself; other paths are not opened."""
    if INDEX not in listing:
        return frozenset()
    try:
        named = frozenset(read_index(folder / INDEX).weight_map.values())
    except UnreadableJsonError:
        return frozenset()
    return frozenset(name for name in named if name in listing and name.endswith(".safetensors"))
