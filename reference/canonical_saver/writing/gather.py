"""Tensors that must be computed for their form in the file, one group at a time.

What they are made of is gathered on one rank, in turns on different ones, converted there and
written.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

import torch

from canonical_saver.collectives import Ranks
from canonical_saver.formats.layout import PlacedTensor
from canonical_saver.weights.saved_tensors import WeightSet
from canonical_saver.weights.tensors import PIECE, elements, whole
from canonical_saver.writing.computed_tensors import chosen, groups_to_compute
from canonical_saver.writing.pieces import receive, send
from canonical_saver.writing.read_back import write_now
from canonical_saver.writing.write_items import WriteItem
from canonical_saver.writing.writer import Writer

Group = Sequence[tuple[int, PlacedTensor]]
"""Numbers of files, and the tensors in them that are computed together."""


def convert(writer: Writer) -> None:
    """Compute and write all such tensors; collective, and nothing to do where there is none.

    Raises:
        SaveError: the same on every rank, when it failed on any.
    """
    for turn, group in enumerate(groups_to_compute(writer.write_plan.files)):
        writer.ranks.step("convert", partial(_convert, writer, turn, group))


def _convert(writer: Writer, turn: int, group: Group) -> None:
    weights = set_of(group, writer.write_plan.weight_sets)
    rank = chosen(turn, writer.shares_folder)
    gathered = gather_sources(writer.ranks, weights, group, rank)
    if writer.ranks.rank != rank:
        return
    converted = weights.convert(gathered)
    with writer.room, writer.open() as handles:
        for file, placed in group:
            tensor = converted.pop(placed.saved.name).contiguous()
            local_slice = whole(tensor).slices[0]
            item = WriteItem(file, placed.offset, local_slice, placed.dtype)
            write_now(writer, handles, [item])


def gather_sources(
    ranks: Ranks, weights: WeightSet, group: Group, receiver: int
) -> dict[str, torch.Tensor]:
    """Bring the tensors of a group to one rank, complete, by their names in memory; collective."""
    model_tensors = weights.model_tensors
    needed = {n for _, placed in group for n in placed.saved.needs}
    names = [name for name in model_tensors if name in needed]
    mine = [(name, local_slice) for name in names for local_slice in model_tensors[name].slices]
    everyone = ranks.gather(
        [(name, local_slice.start, local_slice.length) for name, local_slice in mine]
    )
    flat: dict[str, torch.Tensor] = {}
    if ranks.rank == receiver:
        for name in names:
            flat[name] = torch.empty(model_tensors[name].numel, dtype=model_tensors[name].dtype)
    for sender, held in enumerate(everyone):
        parts = [
            (name, start + first, first, min(step, length - first), number)
            for number, (name, start, length) in enumerate(held)
            for step in (PIECE // model_tensors[name].dtype.itemsize,)
            for first in range(0, length, step)
        ]
        pieces: Iterable[torch.Tensor] = ()
        if sender == ranks.rank:
            pieces = (
                elements(mine[n][1], first, count).to("cpu") for _, _, first, count, n in parts
            )
        if sender == ranks.rank != receiver:
            send(ranks, pieces, receiver)
        if ranks.rank != receiver:
            continue
        if sender != receiver:
            sizes = (count * model_tensors[name].dtype.itemsize for name, _, _, count, _ in parts)
            pieces = receive(ranks, sizes, sender)
        for (name, start, _, count, _), piece in zip(parts, pieces, strict=False):
            flat[name][start : start + count] = piece.view(model_tensors[name].dtype)
    return {name: flat.pop(name).view(model_tensors[name].shape) for name in list(flat)}


def set_of(group: Group, weight_sets: Sequence[WeightSet]) -> WeightSet:
    """The set of weights that a group of computed tensors belongs to."""
    _, placed = group[0]
    return next(
        one for one in weight_sets if any(saved is placed.saved for saved in one.saved_tensors)
    )
