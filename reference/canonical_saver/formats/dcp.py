"""The ``dcp`` format: torch.distributed.checkpoint, for resuming with another number of ranks.

Tensors keep their names in memory, since it is a model in memory that loads them. Each rank writes
a file of its own; flat ranges become the boxes that this format knows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    MetadataIndex,
    TensorProperties,
)
from torch.distributed.checkpoint.planner import (
    SavePlan,
    TensorWriteData,
    WriteItem,
    WriteItemType,
)
from torch.distributed.checkpoint.state_dict_saver import save

from canonical_saver.collectives import Ranks
from canonical_saver.errors import WeightsError, WriteError
from canonical_saver.formats.layout import File, stored_dtype
from canonical_saver.request import Request
from canonical_saver.weights.saved_tensors import SavedTensor, WeightSet, direct
from canonical_saver.weights.tensors import LocalSlice, elements
from canonical_saver.writing.overflow import overflowed
from canonical_saver.writing.writer import Writer


@dataclass(frozen=True)
class _Part:
    """A box of a tensor that this rank writes: its elements are consecutive."""

    local_slice: LocalSlice
    start: int
    dtype: torch.dtype
    sizes: tuple[int, ...]


def _entries(weights: WeightSet) -> tuple[SavedTensor, ...]:
    """The tensors of a save under their names in memory."""
    if weights.adapter is None:
        fixed = {name for saved in weights.saved_tensors if saved.fixed for name in saved.needs}
        kept = {
            id(s.model_tensor)
            for e in weights.saved_tensors
            if e.fixed
            for s in e.source_ranges or ()
        }
        return tuple(
            replace(direct(name, model_tensor), fixed=name in fixed or id(model_tensor) in kept)
            for name, model_tensor in weights.model_tensors.items()
        )
    for saved in weights.saved_tensors:
        if saved.source_ranges is None:
            raise WeightsError(
                f"'{saved.name}': expected a tensor in memory, found one that is yet to be "
                "computed, which the dcp format cannot hold; save as safetensors"
            )
    return weights.saved_tensors


def lay_out(weight_sets: Sequence[WeightSet], request: Request) -> list[File]:
    """No files: there is one a rank, made by torch."""
    return []


def create(folder: Path, weight_sets: Sequence[WeightSet], files: Sequence[File]) -> list[Any]:
    """Nothing is made before torch makes it."""
    return []


def finish(writer: Writer) -> None:
    """Write a checkpoint for each set of weights; collective.

    Raises:
        SaveError: the same on every rank, when it failed on any.
    """
    if not all(writer.shares_folder):
        blind = [
            rank for rank, shares_folder in enumerate(writer.shares_folder) if not shares_folder
        ]
        raise WriteError(
            "expected one file system for all ranks, as the dcp format needs it, found that ranks "
            f"{blind} do not see {writer.write_plan.request.output_dir} of rank 0; save as "
            f"safetensors"
        )
    dtype = writer.write_plan.request.dtype

    def work() -> None:
        with writer.room:
            for one in writer.write_plan.weight_sets:
                lost = write(writer.folder / one.folder, one, dtype, writer.ranks)
                if writer.watch is not None and writer.watch.overflows is not None:
                    writer.watch.overflows.counts += lost

    writer.ranks.step("write", work)


def write(
    folder: Path, weights: WeightSet, dtype: torch.dtype | None, ranks: Ranks
) -> Counter[str]:
    """Write one checkpoint; collective.

    Args:
        folder: where to.
        weights: the tensors of it.
        dtype: cast floating-point tensors to it, if given.
        ranks: the ranks of the save.

    Returns:
        Of which tensors this rank has cast how many elements to infinity.

    Raises:
        WeightsError: a tensor of an adapter is in no rank's memory.
    """
    parts: dict[tuple[str, tuple[int, ...]], _Part] = {}
    items: list[WriteItem] = []
    for saved in _entries(weights):
        (source_range,) = saved.source_ranges or ()
        kind = stored_dtype(saved, dtype)
        for local_slice in source_range.model_tensor.slices:
            start = 0
            for offsets, sizes in boxes(
                local_slice.start, local_slice.start + local_slice.length, saved.shape
            ):
                parts[saved.name, offsets] = _Part(local_slice, start, kind, sizes)
                start += prod(sizes)
                items.append(_item(saved, kind, offsets, sizes))
    planner = _Planner(items, parts)
    save(
        {},
        storage_writer=FileSystemWriter(folder),
        planner=planner,
        process_group=ranks.group,
        no_dist=ranks.group is None,
    )
    return planner.overflows


def boxes(
    start: int, stop: int, shape: tuple[int, ...]
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Cut the flat elements ``[start, stop)`` of a tensor into boxes.

    Yields:
        Offsets and sizes of boxes, in order, each consecutive in memory.
    """
    if start >= stop:
        return
    if not shape:
        yield (), ()
        return
    inner = prod(shape[1:])
    first, last = start // inner, stop // inner
    if start % inner:
        end = min(stop, (first + 1) * inner)
        yield from _in_row(first, start - first * inner, end - first * inner, shape)
        first, start = first + 1, end
    if start >= stop:
        return
    if first < last:
        yield (first, *(0 for _ in shape[1:])), (last - first, *shape[1:])
    if last * inner < stop:
        yield from _in_row(last, 0, stop - last * inner, shape)


def _in_row(
    row: int, start: int, stop: int, shape: tuple[int, ...]
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    for offsets, sizes in boxes(start, stop, shape[1:]):
        yield (row, *offsets), (1, *sizes)


def _item(
    saved: SavedTensor, dtype: torch.dtype, offsets: tuple[int, ...], sizes: tuple[int, ...]
) -> WriteItem:
    chunk = ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes))
    data = TensorWriteData(chunk, TensorProperties(dtype=dtype), torch.Size(saved.shape))
    index = MetadataIndex(saved.name, torch.Size(offsets))
    return WriteItem(index, WriteItemType.SHARD, tensor_data=data)


class _Planner(DefaultSavePlanner):
    """Hands the writer this rank's boxes instead of the tensors of a state dict."""

    def __init__(
        self, items: list[WriteItem], parts: dict[tuple[str, tuple[int, ...]], _Part]
    ) -> None:
        super().__init__(flatten_state_dict=False)
        self._items, self._parts = items, parts
        self.overflows: Counter[str] = Counter()

    def create_local_plan(self) -> SavePlan:
        self.plan = SavePlan(self._items)
        return self.plan

    def resolve_data(self, write_item: WriteItem) -> Any:
        offset = write_item.index.offset
        part = self._parts[write_item.index.fqn, tuple(offset or ())]
        cast = part.dtype if part.local_slice.data.dtype != part.dtype else None
        held = elements(part.local_slice, part.start, prod(part.sizes), cast)
        data = held.to("cpu").view(part.dtype)
        if cast is not None and len(data):
            lost = overflowed(part.local_slice, part.start, data)
            self.overflows += Counter({write_item.index.fqn: lost})
        return data.view(part.sizes)
