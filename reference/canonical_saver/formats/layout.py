"""Which tensor lies in which file at which byte: pure functions, the same on every rank.

The bytes are those that ``save_pretrained`` and ``safetensors.torch.save_file`` would write on one
process. They depend on names, dtypes, shapes and the size limit alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

from canonical_saver.request import Request
from canonical_saver.weights.saved_tensors import SavedTensor, WeightSet


@dataclass(frozen=True)
class PlacedTensor:
    """One tensor at its place.

    Attributes:
        saved: what to write.
        dtype: dtype in the file.
        offset: its first byte, counted from the start of the file.
    """

    saved: SavedTensor
    dtype: torch.dtype
    offset: int

    @property
    def size(self) -> int:
        """Bytes of the tensor in the file."""
        return prod(self.saved.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class File:
    """One weight file.

    Attributes:
        name: path relative to the output folder.
        header: the first bytes of the file.
        tensors: what follows, in order of offsets, without gaps.
        size: bytes of the whole file.
    """

    name: str
    header: bytes
    tensors: tuple[PlacedTensor, ...]
    size: int


def stored_dtype(saved: SavedTensor, dtype: torch.dtype | None) -> torch.dtype:
    """The dtype of a tensor in its file: its own, unless a floating-point one is to be cast."""
    cast = dtype is not None and saved.dtype.is_floating_point and not saved.fixed
    return dtype if cast and dtype is not None else saved.dtype


def stored_size(saved_tensors: Sequence[SavedTensor], dtype: torch.dtype | None) -> int:
    """Bytes of all these tensors in their files."""
    return sum(prod(saved.shape) * stored_dtype(saved, dtype).itemsize for saved in saved_tensors)


def split(
    saved_tensors: Sequence[SavedTensor], max_shard_size: int, dtype: torch.dtype | None
) -> list[list[SavedTensor]]:
    """Fill files in order, each up to ``max_shard_size`` bytes of tensors.

    A larger tensor has a file of its own, the one being filled goes on behind it: that is how
    ``huggingface_hub.split_torch_state_dict_into_shards`` counts. A file in between that would have
    nothing in it is left out.
    """
    shards: list[list[SavedTensor]] = []
    current: list[SavedTensor] = []
    used = 0
    for saved in saved_tensors:
        size = prod(saved.shape) * stored_dtype(saved, dtype).itemsize
        if size > max_shard_size:
            shards.append([saved])
            continue
        if used + size > max_shard_size and current:
            shards.append(current)
            current, used = [], 0
        current.append(saved)
        used += size
    if current or not shards:
        shards.append(current)
    return shards


def shard_names(stem: str, ending: str, count: int) -> list[str]:
    """Names of the files of one save: without a number if there is only one."""
    if count == 1:
        return [f"{stem}{ending}"]
    return [f"{stem}-{number:05d}-of-{count:05d}{ending}" for number in range(1, count + 1)]


def index(files: Sequence[File]) -> bytes:
    """Make the index of several shards, formatted as transformers does."""
    placed = [(tensor, file.name.rpartition("/")[2]) for file in files for tensor in file.tensors]
    content = {
        "metadata": {
            "total_parameters": sum(prod(tensor.saved.shape) for tensor, _ in placed),
            "total_size": sum(tensor.size for tensor, _ in placed),
        },
        "weight_map": {tensor.saved.name: name for tensor, name in placed},
    }
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()


def lay_out_shards(
    weight_sets: Sequence[WeightSet],
    request: Request,
    ending: str,
    lay_out: Callable[[str, Sequence[SavedTensor], torch.dtype | None], File],
) -> list[File]:
    """Lay out the files of each set of weights, a model's in shards.

    Args:
        weight_sets: what is to be saved.
        request: how.
        ending: the ending of the files' names.
        lay_out: lays out one file, given its path, its tensors and the dtype to cast to.
    """
    files: list[File] = []
    for weights in weight_sets:
        # PEFT knows no shards: an adapter is one file.
        shards = [list(weights.saved_tensors)]
        if weights.adapter is None:
            shards = split(weights.saved_tensors, request.max_shard_size, request.dtype)
        names = shard_names(weights.stem, ending, len(shards))
        for name, saved_tensors in zip(names, shards, strict=True):
            path = f"{weights.folder}/{name}" if weights.folder else name
            files.append(lay_out(path, saved_tensors, request.dtype))
    return files


def write_indexes(
    folder: Path, weight_sets: Sequence[WeightSet], files: Sequence[File], ending: str
) -> None:
    """Write the index of each set of weights that has several shards; on rank 0."""
    for weights in weight_sets:
        place = f"{weights.folder}/{weights.stem}" if weights.folder else weights.stem
        shards = [file for file in files if file.name.startswith(f"{place}-")]
        if len(shards) > 1:
            (folder / f"{place}{ending}.index.json").write_bytes(index(shards))
