"""A model in several files, and the index that says which tensor is in which."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import prod
from pathlib import Path

import torch

from canonical_saver.formats.layout import File, stored_dtype
from canonical_saver.request import Request
from canonical_saver.weights.saved_tensors import SavedTensor, WeightSet


def named_shards(
    weights: WeightSet, ending: str, request: Request
) -> dict[str, tuple[SavedTensor, ...]]:
    """Divide a set of weights into files; their tensors by their names."""
    shards = split(weights.saved_tensors, request.max_shard_size, request.dtype)
    return dict(zip(shard_names(weights.stem, ending, len(shards)), shards, strict=True))


def split(
    saved_tensors: Sequence[SavedTensor], max_shard_size: int, dtype: torch.dtype | None
) -> list[tuple[SavedTensor, ...]]:
    """Fill files in order, each up to ``max_shard_size`` bytes of tensors.

    A larger tensor has a file of its own, the one being filled goes on behind it: that is how
    ``huggingface_hub.split_torch_state_dict_into_shards`` counts. A file in between that would have
    nothing in it is left out.
    """
    shards: list[tuple[SavedTensor, ...]] = []
    current: list[SavedTensor] = []
    used = 0
    for saved in saved_tensors:
        size = prod(saved.shape) * stored_dtype(saved, dtype).itemsize
        if size > max_shard_size:
            shards.append((saved,))
            continue
        if used + size > max_shard_size and current:
            shards.append(tuple(current))
            current, used = [], 0
        current.append(saved)
        used += size
    if current or not shards:
        shards.append(tuple(current))
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


def write_indexes(
    folder: Path, weight_sets: Sequence[WeightSet], files: Sequence[File], ending: str
) -> None:
    """Write the index of each set of weights that has several shards; on rank 0."""
    for weights in weight_sets:
        place = f"{weights.folder}/{weights.stem}" if weights.folder else weights.stem
        shards = [file for file in files if file.name.startswith(f"{place}-")]
        if len(shards) > 1:
            (folder / f"{place}{ending}.index.json").write_bytes(index(shards))
