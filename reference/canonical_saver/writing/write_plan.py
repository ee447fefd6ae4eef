"""What a rank is to save and where its bytes go, found out before anything is written."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from canonical_saver import weights
from canonical_saver.collectives import Ranks
from canonical_saver.formats import Archive, WeightFormat, find_format
from canonical_saver.formats.layout import File
from canonical_saver.request import Request
from canonical_saver.weights.engines import find_engines
from canonical_saver.weights.saved_tensors import WeightSet, require_data
from canonical_saver.writing.write_items import WriteItem, write_items


@dataclass(frozen=True)
class WritePlan:
    """A save as this rank has planned it.

    Attributes:
        request: what was requested.
        model: the module whose configuration goes next to the weights, without wrappers.
        weight_sets: the tensors of each weight file or set of shards.
        files: the layout, the same on every rank.
        planned: what this rank writes.
    """

    request: Request
    model: Any
    weight_sets: list[WeightSet]
    files: list[File]
    planned: list[WriteItem]

    @property
    def warnings(self) -> dict[str, None]:
        """What a person should know of the selection of weights, each once."""
        return dict.fromkeys(text for weights in self.weight_sets for text in weights.warnings)

    @property
    def format(self) -> WeightFormat:
        """The format of its files."""
        return find_format(self.request.format)

    def final(self, carried: Sequence[Any], archives: Sequence[Archive], rank: int) -> WritePlan:
        """The same with what was found out while the files were made; most saves have nothing.

        Args:
            carried: tensors of the base that the model does not have; rank 0 writes them.
            archives: where tensors lie in files of the ``torch`` format.
            rank: this rank.
        """
        if not carried and not archives:
            return self
        from canonical_saver.writing.late_changes import final

        return final(self, carried, archives, rank)


@torch.no_grad()
def plan_write(request: Request, ranks: Ranks, *, dry: bool = False) -> WritePlan:
    """Plan a save on this rank; no rank waits for another here.

    Args:
        request: what was requested.
        ranks: the ranks of the save.
        dry: nothing will be written, so the tensors need not have data.

    Raises:
        SaveError: the weights cannot be found, named or stored as asked.
    """
    with _no_collections():
        model = weights.find_model(request.roots)
        engines = find_engines(request.roots, ranks.rank)
        weight_sets = weights.collect(model, engines, request)
        for one in () if dry else weight_sets:
            require_data(one)
        model = weight_sets[0].owner or model
        if request.dtype is not None:
            from canonical_saver.weights import casting

            weight_sets = [casting.limited(model, one, request.dtype) for one in weight_sets]
        files = find_format(request.format).lay_out(weight_sets, request)
        return WritePlan(request, model, weight_sets, files, write_items(files))


@contextmanager
def _no_collections() -> Iterator[None]:
    """Keep the garbage collector from walking through all that is planned, again and again.

    Planning makes some objects for each tensor and no cycles: of its time, collections would be
    more than half.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
