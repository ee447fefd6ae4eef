"""The tensors of a save: their names and shapes in the file, and where their elements come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from canonical_saver.weights.tensors import ModelTensor

Convert = Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
"""Turns complete tensors by their names in memory into tensors by their names in the file."""


@dataclass(frozen=True, eq=False)
class SourceRange:
    """Elements of a saved tensor that are a flat range of one model tensor.

    Attributes:
        start: first element in the saved tensor.
        length: how many elements.
        model_tensor: where they come from.
        offset: first element in the model tensor.
    """

    start: int
    length: int
    model_tensor: ModelTensor
    offset: int


@dataclass(frozen=True, eq=False)
class SavedTensor:
    """One tensor of a save.

    Attributes:
        name: its key in the file.
        dtype: its dtype in the model.
        shape: its shape in the file.
        source_ranges: where its elements come from; None if they must be computed.
        needs: for a computed tensor, the names in memory that it is computed from.
        fixed: its dtype stays, also where others are cast.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    source_ranges: tuple[SourceRange, ...] | None
    needs: frozenset[str] = frozenset()
    fixed: bool = False


def direct(name: str, model_tensor: ModelTensor) -> SavedTensor:
    """Save a model tensor as it is."""
    source_range = SourceRange(0, model_tensor.numel, model_tensor, 0)
    return SavedTensor(name, model_tensor.dtype, model_tensor.shape, (source_range,))


@dataclass(frozen=True)
class WeightSet:
    """The tensors of one weight file, or of one set of shards.

    Attributes:
        folder: where they go, relative to the output folder; "" is the folder itself.
        stem: file name without its ending.
        saved_tensors: the tensors in the order in which files are filled.
        model_tensors: what computed tensors are made of, by their names in memory.
        convert: computes those of some groups of saved tensors from their model tensors.
        adapter: the name of the PEFT adapter, None for a full save.
        config: the adapter's configuration as PEFT's rules leave it, None for a full save.
        owner: the module whose configuration goes next to them, None for the model itself.
        warnings: what a person should know of this selection.
    """

    folder: str
    stem: str
    saved_tensors: tuple[SavedTensor, ...]
    model_tensors: dict[str, ModelTensor]
    convert: Convert
    adapter: str | None = None
    config: Any = None
    owner: Any = None
    warnings: tuple[str, ...] = ()


def require_data(weights: WeightSet) -> None:
    """Refuse tensors of which this rank should write elements that it does not have.

    Raises:
        WeightsError: a tensor is on the meta device, and nothing says where its data is.
    """
    for saved in weights.saved_tensors:
        model_tensors = [one.model_tensor for one in saved.source_ranges or ()]
        model_tensors += [weights.model_tensors[name] for name in saved.needs]
        slices = [one for model_tensor in model_tensors for one in model_tensor.slices]
        if any(one.load is None and one.data.is_meta and one.length for one in slices):
            from canonical_saver.weights.uneven_tensors import without_data

            raise without_data(saved.name)
