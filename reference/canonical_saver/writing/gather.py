"""Tensors that must be computed for their form in the file, one group at a time.

Their sources are gathered on one rank, by turns on different ones, converted there and written.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

import torch

from canonical_saver.formats.layout import Placed
from canonical_saver.weights.saved_tensors import Weights
from canonical_saver.weights.tensors import read, whole
from canonical_saver.writing.device_copy import PIECE
from canonical_saver.writing.write_items import Transfer
from canonical_saver.writing.writer import Writer

Group = Sequence[tuple[int, Placed]]
"""Numbers of files, and the tensors in them that are computed together."""


def convert(writer: Writer) -> None:
    """Compute and write all such tensors; collective, and nothing to do where there is none.

    Raises:
        SaveError: the same on every rank, when it failed on any.
    """
    for turn, group in enumerate(writer.groups):
        writer.ranks.step("convert", partial(_convert, writer, turn, group))


def _convert(writer: Writer, turn: int, group: Group) -> None:
    weights = _set_of(group, writer.prepared.sets)
    chosen = writer.chosen(turn)
    gathered = _gathered(writer, weights, group, chosen)
    if writer.ranks.rank != chosen:
        return
    converted = weights.compute(gathered)
    with writer.room, writer.open() as handles:
        for file, placed in group:
            tensor = converted.pop(placed.entry.name).contiguous()
            run = whole(tensor).runs[0]
            writer.write_checked(handles, [Transfer(file, placed.offset, run, placed.dtype)])


def _gathered(
    writer: Writer, weights: Weights, group: Group, chosen: int
) -> dict[str, torch.Tensor]:
    """Bring the sources of a group to one rank, complete, by their names in memory."""
    ranks, memory = writer.ranks, weights.memory
    needed = {n for _, placed in group for n in placed.entry.needs}
    names = [name for name in memory if name in needed]
    mine = [(name, run) for name in names for run in memory[name].runs]
    everyone = ranks.gather([(name, run.start, run.length) for name, run in mine])
    flat: dict[str, torch.Tensor] = {}
    if ranks.rank == chosen:
        for name in names:
            flat[name] = torch.empty(memory[name].numel, dtype=memory[name].dtype)
    for sender, held in enumerate(everyone):
        parts = [
            (name, start + first, first, min(step, length - first), number)
            for number, (name, start, length) in enumerate(held)
            for step in (PIECE // memory[name].dtype.itemsize,)
            for first in range(0, length, step)
        ]
        pieces: Iterable[torch.Tensor] = ()
        if sender == ranks.rank:
            pieces = (read(mine[n][1], first, count) for _, _, first, count, n in parts)
        if sender == ranks.rank != chosen:
            ranks.send(pieces, chosen)
        if ranks.rank != chosen:
            continue
        if sender != chosen:
            sizes = (count * memory[name].dtype.itemsize for name, _, _, count, _ in parts)
            pieces = ranks.receive(sizes, sender)
        for (name, start, _, count, _), piece in zip(parts, pieces, strict=False):
            flat[name][start : start + count] = piece.view(memory[name].dtype)
    return {name: flat.pop(name).view(memory[name].shape) for name in list(flat)}


def _set_of(group: Group, sets: Sequence[Weights]) -> Weights:
    """The set of weights that a group of computed tensors belongs to."""
    _, placed = group[0]
    return next(one for one in sets if any(entry is placed.entry for entry in one.entries))
