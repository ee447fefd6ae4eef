"""The tensors of a save: their names and shapes in the file, and where their elements come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from canonical_saver.errors import WeightsError
from canonical_saver.weights.tensors import Source

Compute = Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
"""Turns complete tensors by their names in memory into tensors by their names in the file."""


@dataclass(frozen=True, eq=False)
class Span:
    """Elements of a saved tensor that are a flat range of one source.

    Attributes:
        start: first element in the saved tensor.
        length: how many elements.
        source: where they come from.
        offset: first element in the source.
    """

    start: int
    length: int
    source: Source
    offset: int


@dataclass(frozen=True, eq=False)
class Entry:
    """One tensor of a save.

    Attributes:
        name: its key in the file.
        dtype: its dtype in the model.
        shape: its shape in the file.
        spans: where its elements come from; None if they must be computed.
        needs: for a computed tensor, the names in memory that it is computed from.
        fixed: its dtype stays, also where others are cast.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    spans: tuple[Span, ...] | None
    needs: frozenset[str] = frozenset()
    fixed: bool = False


def direct(name: str, source: Source) -> Entry:
    """Save a source as it is."""
    span = Span(0, source.numel, source, 0)
    return Entry(name, source.dtype, source.shape, (span,))


@dataclass(frozen=True)
class Weights:
    """The tensors of one weight file, or of one set of shards.

    Attributes:
        folder: where they go, relative to the output folder; "" is the folder itself.
        stem: file name without its ending.
        entries: the tensors in the order in which files are filled.
        memory: the sources of computed tensors, by their names in memory.
        compute: computes those of some groups of entries whose sources it is given.
        adapter: the name of the PEFT adapter, None for a full save.
        config: the adapter's configuration as PEFT's rules leave it, None for a full save.
        owner: the module whose configuration goes beside them, None for the model itself.
        warnings: what a person should know of this selection.
    """

    folder: str
    stem: str
    entries: tuple[Entry, ...]
    memory: dict[str, Source]
    compute: Compute
    adapter: str | None = None
    config: Any = None
    owner: Any = None
    warnings: tuple[str, ...] = ()


def require_data(weights: Weights) -> None:
    """Refuse tensors of which this rank should write elements that it does not have.

    Raises:
        WeightsError: a tensor is on the meta device, and nothing says where its data is.
    """
    for entry in weights.entries:
        spans = entry.spans or ()
        for source in [*(s.source for s in spans), *(weights.memory[n] for n in entry.needs)]:
            if any(run.load is None and run.data.is_meta for run in source.runs):
                raise WeightsError(
                    f"'{entry.name}': expected a tensor with data, found one on the meta device "
                    "and no hook of accelerate that has its data; load the weights before saving"
                )
