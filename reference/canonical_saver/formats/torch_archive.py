"""The ``torch`` format: the archive of ``torch.save``.

Where the tensors lie in it is known once rank 0 has made the archive with all data left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from canonical_saver.formats import Archive
from canonical_saver.formats.layout import (
    File,
    PlacedTensor,
    lay_out_shards,
    stored_dtype,
)
from canonical_saver.formats.shards import write_indexes
from canonical_saver.request import Request
from canonical_saver.weights.saved_tensors import SavedTensor, WeightSet

ENDING = ".bin"
_STEMS = {"model": "pytorch_model", "adapter_model": "adapter_model"}


def lay_out(weight_sets: Sequence[WeightSet], request: Request) -> list[File]:
    """Lay out all weight files of a save, with offsets as if nothing lay between tensors."""
    return lay_out_shards(_renamed(weight_sets), request, ENDING, plain_file)


def plain_file(name: str, saved_tensors: Sequence[SavedTensor], dtype: torch.dtype | None) -> File:
    """Lay out one file of nothing but tensors, in their order."""
    placed: list[PlacedTensor] = []
    position = 0
    for saved in saved_tensors:
        placed.append(PlacedTensor(saved, stored_dtype(saved, dtype), position))
        position += placed[-1].size
    return File(name, b"", tuple(placed), position)


def create(folder: Path, weight_sets: Sequence[WeightSet], files: Sequence[File]) -> list[Archive]:
    """Make the archives with room for the data, and the indexes; on rank 0.

    Returns:
        Where the tensors lie, as :func:`place` needs it.
    """
    archives = [_create(folder / file.name, file) for file in files]
    write_indexes(folder, _renamed(weight_sets), files, ENDING)
    return archives


def place(files: list[File], archives: Sequence[Archive]) -> list[File]:
    """Give the files their sizes, and their tensors their offsets."""
    placed = []
    for file, (size, offsets) in zip(files, archives, strict=True):
        tensors = [replace(p, offset=offsets[p.saved.name]) for p in file.tensors]
        tensors.sort(key=lambda tensor: tensor.offset)
        placed.append(replace(file, tensors=tuple(tensors), size=size))
    return placed


def finish(writer: Any) -> None:
    """Nothing is left to write."""


def _renamed(weight_sets: Sequence[WeightSet]) -> list[WeightSet]:
    return [replace(weights, stem=_STEMS[weights.stem]) for weights in weight_sets]


def _create(path: Path, file: File) -> Archive:
    path.parent.mkdir(parents=True, exist_ok=True)
    with FakeTensorMode(), torch.serialization.skip_data(materialize_fake_tensors=True):
        tensors = {p.saved.name: torch.empty(p.saved.shape, dtype=p.dtype) for p in file.tensors}
        torch.save(tensors, path)
    with FakeTensorMode():
        found = torch.load(path, weights_only=True)
    places = {k: v.untyped_storage()._checkpoint_offset or 0 for k, v in found.items()}
    return path.stat().st_size, places
