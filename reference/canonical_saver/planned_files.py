"""What a save would write, without writing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from canonical_saver.collectives import Ranks
from canonical_saver.request import build
from canonical_saver.writing.write_items import ranges
from canonical_saver.writing.write_plan import plan_write


@dataclass(frozen=True)
class PlannedFile:
    """One weight file that a save would write.

    Attributes:
        name: path relative to the output folder.
        size: its bytes.
        ranges: first byte and number of bytes of each range that this rank would write.
    """

    name: str
    size: int
    ranges: tuple[tuple[int, int], ...]


def plan(
    model: nn.Module,
    *,
    max_shard_size: int | str | None = None,
    dtype: torch.dtype | str | None = None,
) -> list[PlannedFile]:
    """The files that a save in the ``safetensors`` format would write; nothing is written.

    Args:
        model: the model, wrapped or not.
        max_shard_size: as in :func:`save_model`.
        dtype: as in :func:`save_model`.

    Returns:
        The weight files, with the ranges that this rank would write.

    Examples:
        >>> [file.name for file in plan(model)]
        ['model.safetensors']
    """
    ranks = Ranks.current()
    request = build(model, "plan", max_shard_size=max_shard_size, dtype=dtype)
    write_plan, _ = ranks.step("plan", lambda: plan_write(request, ranks, dry=True))
    mine = ranges(write_plan.planned)
    return [
        PlannedFile(f.name, f.size, tuple(r[1:] for r in mine if r[0] == number))
        for number, f in enumerate(write_plan.files)
    ]
