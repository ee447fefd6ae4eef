"""What a rank is to save and where its bytes go, found out before anything is written."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from canonical_saver import formats, weights
from canonical_saver.collectives import Ranks
from canonical_saver.errors import RequestError
from canonical_saver.formats.layout import File, stored_size
from canonical_saver.request import Request
from canonical_saver.weights import casting
from canonical_saver.weights.engines import Engines
from canonical_saver.weights.module_tree import unwrap
from canonical_saver.weights.replicas import Replicas
from canonical_saver.weights.saved_tensors import Weights, require_data
from canonical_saver.writing import agreement
from canonical_saver.writing.write_items import Transfer, packed, ranges, transfers


@dataclass(frozen=True)
class Prepared:
    """A save as this rank has planned it.

    Attributes:
        asked: what was asked for.
        model: the module whose configuration goes beside the weights, without wrappers.
        sets: the tensors of each weight file or set of shards.
        files: the layout, the same on every rank.
        planned: what this rank writes.
        replicas: what it holds that others are said to hold as well.
    """

    asked: Request
    model: Any
    sets: list[Weights]
    files: list[File]
    planned: list[Transfer]
    replicas: Replicas

    @property
    def needed(self) -> int:
        """Bytes of all weights."""
        return sum(stored_size(one.entries, self.asked.dtype) for one in self.sets)

    def placed(self, archives: list[formats.Archive]) -> Prepared:
        """The same with the final layout, where that was not known before the files were made."""
        files = formats.place(self.files, archives)
        return self if files is self.files else replace(self, files=files, planned=transfers(files))

    def proposal(self) -> agreement.Proposal:
        """What the other ranks must agree with."""
        return agreement.Proposal(
            options=self.asked.options(),
            fingerprint=agreement.fingerprint(self.sets, self.files),
            replicas=self.replicas.summary(),
            ranges=packed(ranges(self.planned)),
        )


@torch.no_grad()
def prepare(asked: Request, ranks: Ranks, *, dry: bool = False) -> Prepared:
    """Plan a save on this rank; no rank waits for another here.

    Args:
        asked: what was asked for.
        ranks: the ranks of the save.
        dry: nothing will be written, so the tensors need not have data.

    Raises:
        SaveError: the weights cannot be found, named or stored as asked.
    """
    with _no_collections():
        model = weights.find_model(asked.roots)
        engines = Engines(asked.roots, ranks.rank)
        merge = asked.merge and weights.can_merge(model)
        if merge and asked.format == "dcp":
            raise RequestError(
                "relora: expected weights in memory, as the dcp format has them, found ones that "
                "are yet to be merged; save as safetensors"
            )
        sets = weights.collect(model, engines, merge=merge)
        for one in () if dry else sets:
            require_data(one)
        if merge:
            model = unwrap(model.get_base_model())
        model = sets[0].owner or model
        sets = [casting.limited(model, one, asked.dtype) for one in sets]
        files = formats.lay_out(sets, asked)
        compared = asked.check_replicas and ranks.world_size > 1 and not dry
        replicas = Replicas(sets if compared else ())
        return Prepared(asked, model, sets, files, transfers(files), replicas)


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
