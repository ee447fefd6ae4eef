"""Tensors of the base's checkpoint that no class loads: layers that predict further tokens.

A saved model that lacks them is no longer what its configuration says, and can no longer predict
several tokens at once. They are copied byte for byte where the checkpoint is on this machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from canonical_saver.weights.prediction_layers import beside, main_layers
from canonical_saver.weights.saved_tensors import WeightSet, direct
from canonical_saver.weights.tensors import LocalSlice, ModelTensor

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True)
class BaseTensor:
    """A tensor in a file of the base.

    Attributes:
        file: the file.
        name: its key in the file.
        dtype: its dtype there, which it keeps.
        shape: its shape.
    """

    file: Path
    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]


def find(
    names: Sequence[str | None], config: Mapping[str, Any], weights: WeightSet
) -> tuple[BaseTensor, ...]:
    """Find the tensors of the base that are of layers which predict further tokens.

    Args:
        names: by which the base may be known: folders, or ids on the hub.
        config: what ``config.json`` of the save has.
        weights: what the save holds of the model itself.

    Returns:
        Those that the save does not hold; none if no checkpoint of the same model is at hand.
    """
    for folder in dict.fromkeys(folders(names)):
        with suppress(OSError, ValueError, LookupError, TypeError, AttributeError, SafetensorError):
            base = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            if _of_one_model(base, config):
                return tuple(_of_prediction_layers(folder, main_layers(base), weights))
    return ()


def extended(weights: WeightSet, tensors: Sequence[BaseTensor], *, writes: bool) -> WeightSet:
    """Add tensors of the base to those of a save.

    Args:
        weights: the save.
        tensors: the tensors.
        writes: whether this rank writes them, all of them.
    """
    added = []
    for tensor in tensors:
        like = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
        slices = (LocalSlice(0, like.numel(), like, load=_Load(tensor)),) if writes else ()
        found = ModelTensor(tensor, tensor.dtype, tensor.shape, slices)
        added.append(replace(direct(tensor.name, found), fixed=True))
    return replace(weights, saved_tensors=(*weights.saved_tensors, *added))


@dataclass(frozen=True)
class _Load:
    """Reads a tensor of the base; its pages come from the file when they are looked at."""

    tensor: BaseTensor

    def __call__(self) -> torch.Tensor:
        with safe_open(self.tensor.file, framework="pt") as stream:
            return stream.get_tensor(self.tensor.name)  # type: ignore[no-any-return]


def folders(names: Sequence[str | None]) -> Iterator[Path]:
    """The folders that names lead to; of the hub's cache, only where it has one version."""
    for name in names:
        found = folders_of(name) if name else []
        if len(found) == 1:
            yield found[0]


def folders_of(name: str) -> list[Path]:
    """The folders that a name of a base leads to: itself, or all versions in the hub's cache."""
    from huggingface_hub.constants import HF_HUB_CACHE, REPO_ID_SEPARATOR

    repository = REPO_ID_SEPARATOR.join(["models", *name.split("/")])
    snapshots = Path(HF_HUB_CACHE, repository, "snapshots")
    with suppress(OSError, ValueError):  # it may be too long for a path, or no text of one
        if Path(name).is_dir():
            return [Path(name)]
        return sorted(path for path in snapshots.glob("*") if path.is_dir())
    return []


_SIZES = ("num_hidden_layers", "hidden_size", "vocab_size")
_MUST_AGREE = "quantization_config"
"""Where the model was quantized or turned back since, its layers do not fit those of the base."""


def _of_one_model(base: Any, config: Mapping[str, Any]) -> bool:
    """Whether two configurations are of one kind of model, of the same sizes."""
    if not isinstance(base, Mapping) or base.get(_MUST_AGREE) != config.get(_MUST_AGREE):
        return False
    first, second = ([one, one.get("text_config") or {}] for one in (base, config))
    kinds = [{part.get("model_type") for part in parts} - {None} for parts in (first, second)]
    sizes = [
        [next((part[name] for part in parts[::-1] if name in part), None) for name in _SIZES]
        for parts in (first, second)
    ]
    return bool(kinds[0] & kinds[1]) and sizes[0] == sizes[1]


def _of_prediction_layers(
    folder: Path, layers: int | None, weights: WeightSet
) -> Iterator[BaseTensor]:
    held = {saved.name for saved in weights.saved_tensors}
    for file in files(folder):
        with safe_open(file, framework="pt") as stream:
            for name in beside(stream.keys(), held, layers):
                like = stream.get_tensor(name)
                yield BaseTensor(file, name, like.dtype, tuple(like.shape))


def files(folder: Path) -> list[Path]:
    """The weight files that a loader takes."""
    if (folder / _SINGLE).is_file():
        return [folder / _SINGLE]
    index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
    return [folder / name for name in sorted(set(index["weight_map"].values()))]
