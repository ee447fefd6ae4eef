"""Which tensor lies in which file at which byte: pure functions, the same on every rank.

The bytes are those that ``save_pretrained`` and ``safetensors.torch.save_file`` would write on one
process. They depend on names, dtypes, shapes and the size limit alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

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
        shards = {f"{weights.stem}{ending}": weights.saved_tensors}
        size = stored_size(weights.saved_tensors, request.dtype)
        # PEFT knows no shards: an adapter is one file.
        if weights.adapter is None and size > request.max_shard_size:
            from canonical_saver.formats.shards import named_shards

            shards = named_shards(weights, ending, request)
        for name, saved_tensors in shards.items():
            path = f"{weights.folder}/{name}" if weights.folder else name
            files.append(lay_out(path, saved_tensors, request.dtype))
    return files
