"""The base model that an adapter needs, and what its save must not do to it.

An adapter is worth nothing without its base, so no save of one may replace a file of it. Nor may it
put an adapter into the base's folder: from then on, whoever loads the base there would get the
adapter too (``transformers`` attaches it). Only where that is so already, the new adapter takes the
place of the old one.
"""

from __future__ import annotations

import filecmp
import os
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from canonical_saver.errors import RequestError
from canonical_saver.publishing import stale_files
from canonical_saver.publishing.staging import Staging
from canonical_saver.request import Request
from canonical_saver.weights.base_tensors import folders_of
from canonical_saver.weights.saved_tensors import WeightSet

_WEIGHT_ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
_OF_ADAPTERS = ("adapter_config.json", "adapter_model.")


class BaseModel:
    """The base of the adapters of a model.

    Args:
        model: the unwrapped model with adapters.
        request: the save; it may have the name of the base by the training's configuration.
    """

    def __init__(self, model: Any, request: Request) -> None:
        self._output_dir, self._checksums = request.output_dir, request.checksums
        base = model.get_base_model()
        configs = model.peft_config.values()
        found = [getattr(config, "base_model_name_or_path", None) for config in configs]
        found += [getattr(base, "name_or_path", None), request.base_model]
        found += [getattr(getattr(base, "config", None), "_name_or_path", None)]
        named = (name for name in found if isinstance(name, str | Path) and str(name))
        self._names = sorted({os.fspath(name) for name in named})
        """The names by which it may be known: folders, or ids on the hub."""

    def refuse_folder(self, weight_sets: Collection[WeightSet]) -> None:
        """Refuse to put an adapter into the folder of its base.

        Args:
            weight_sets: the adapters that are to be saved.

        Raises:
            RequestError: the folder of an adapter is the base's, or has weights of it.
        """
        for weights in weight_sets:
            place = self._output_dir / weights.folder
            why = _why_base(self._names, place)
            if why and not (place / "adapter_config.json").exists():
                raise RequestError(
                    f"output_dir: expected a folder for the adapter alone, found its base model: "
                    f"{place} {why}; with the adapter in it, the base could no longer be loaded "
                    "without the adapter: save to another folder"
                )

    def refuse_changes(self, staging: Staging, weight_sets: Sequence[WeightSet]) -> None:
        """Refuse to replace or remove a file in the folder of the base.

        Args:
            staging: the folder with the files that come.
            weight_sets: the adapters that are to be saved.

        Raises:
            RequestError: a file of the base would go, or have other bytes.
        """
        output_dir = self._output_dir
        if not _why_base(self._names, output_dir):
            return
        arrival = stale_files.arrival_of(staging, weight_sets)
        going = set(stale_files.files(output_dir, arrival))
        coming = arrival.names | ({stale_files.CHECKSUMS} if self._checksums else set())
        # Cards and checksums that go are those of an earlier adapter.
        own = {stale_files.CARD, stale_files.CHECKSUMS} & going
        lost = [
            name
            for name in sorted((going | coming) - own)
            if os.path.lexists(output_dir / name)
            and not Path(name).name.startswith(_OF_ADAPTERS)
            and not _equal(arrival.staged / name, output_dir / name)
        ]
        if lost:
            raise RequestError(
                "output_dir: expected a folder where the adapter's base model loses nothing, found "
                f"files of it that would be replaced ({', '.join(lost)}): {output_dir} "
                f"{_why_base(self._names, output_dir)}; save to another folder"
            )


def _why_base(names: Sequence[str], place: Path) -> str:
    """Say why a folder is one of the base's, "" if it is none."""
    if not place.is_dir():
        return ""
    for name in names:
        for folder in folders_of(name):
            if place.samefile(folder):
                return f"is the folder of '{name}'"
            weights = _inodes(folder, _WEIGHT_ENDINGS)
            # Of any name: in the hub's cache, that of the file is its digest.
            for inode, path in _inodes(place, "").items():
                if inode in weights:
                    return f"has {path.name}, which is {weights[inode]}"
        if _may_have_been(name, place):
            return f"has a model, and may be '{name}' as seen from another working directory"
    return ""


def _may_have_been(name: str, place: Path) -> bool:
    """Whether a relative name that leads nowhere now was that of a folder with a model.

    A process that changed its working directory after it loaded the base has lost the folder.
    """
    path = Path(name)
    parts = tuple(part for part in path.parts if part != os.pardir)
    if path.is_absolute() or not parts or any(folders_of(name)):
        return False
    return place.resolve().parts[-len(parts) :] == parts and bool(
        stale_files.weight_files(place, adapter=False)
    )


def _inodes(folder: Path, endings: str | tuple[str, ...]) -> dict[tuple[int, int], Path]:
    """Files in a folder by device and inode; links stand for what they lead to."""
    found = {}
    for path in sorted(folder.glob("*")):
        if path.name.endswith(endings) and not path.name.startswith(_OF_ADAPTERS):
            with suppress(OSError):  # a link that leads nowhere
                if path.is_file():
                    status = path.stat()
                    found[status.st_dev, status.st_ino] = path
    return found


def _equal(new: Path, old: Path) -> bool:
    return new.is_file() and old.is_file() and filecmp.cmp(new, old, shallow=False)
