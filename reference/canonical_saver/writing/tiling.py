"""The proof that the ranks together write each byte of each tensor exactly once."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from canonical_saver.formats.layout import File
from canonical_saver.writing.write_items import packed


def prove_tiling(files: Sequence[File], everyone: Sequence[torch.Tensor]) -> None:
    """Prove that the ranks together write each byte of each tensor exactly once.

    Args:
        files: the layout.
        everyone: for each rank its ranges, packed.

    Raises:
        VerifyError: a gap or an overlap; names file and byte.
    """
    sizes = torch.tensor([file.size for file in files], dtype=torch.int64)
    bases = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
    every = [(number, placed) for number, file in enumerate(files) for placed in file.tensors]
    tensors = packed([(number, placed.offset, placed.size) for number, placed in every])
    computed = torch.tensor([p.saved.source_ranges is None for _, p in every], dtype=torch.bool)
    planned = torch.cat([*everyone, tensors[computed]])
    inside = (planned[:, 1] >= 0) & (planned[:, 1] + planned[:, 2] <= sizes[planned[:, 0]])
    if not bool(inside.all()):
        from canonical_saver.writing.tiling_errors import outside

        raise outside(planned[~inside][0].tolist(), files)
    found, twice = _edges(planned, bases)
    both = torch.cat([found, _edges(tensors, bases)[0]])
    edges, counts = torch.unique(both, return_counts=True)
    alone = edges[counts == 1]
    if twice is not None or len(alone):
        from canonical_saver.writing.tiling_errors import broken

        what, position = ("a gap", int(alone[0])) if twice is None else ("an overlap", twice)
        raise broken(what, position, files, bases.tolist())


def _edges(found: torch.Tensor, bases: torch.Tensor) -> tuple[torch.Tensor, int | None]:
    """Join ranges; positions count through all files.

    Returns:
        Where what they cover begins and ends, each position once, and where two of them overlap, if
        any do.
    """
    found = found[found[:, 2] > 0]
    starts, order = (bases[found[:, 0]] + found[:, 1]).sort()
    ends = starts + found[order, 2]
    overlaps = starts[1:][starts[1:] < ends[:-1]]
    apart = starts[1:] != ends[:-1]
    edges = torch.cat([starts[:1], starts[1:][apart], ends[:-1][apart], ends[-1:]])
    return edges, int(overlaps[0]) if len(overlaps) else None
