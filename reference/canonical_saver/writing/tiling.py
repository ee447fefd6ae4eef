"""The proof that the ranks together write each byte of each tensor exactly once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import torch

from canonical_saver.errors import VerifyError
from canonical_saver.formats.layout import File
from canonical_saver.writing.write_items import packed

_SAME = "is it the same model, sharded by its engine alone, on every rank?"


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
    computed = tensors[[placed.saved.source_ranges is None for _, placed in every]]
    planned = torch.cat([*everyone, computed])
    inside = (planned[:, 1] >= 0) & (planned[:, 1] + planned[:, 2] <= sizes[planned[:, 0]])
    if not bool(inside.all()):
        number, offset, size = planned[~inside][0].tolist()
        raise VerifyError(
            f"{files[number].name}: expected parts within its {files[number].size} bytes, found "
            f"{size} bytes from {offset} on, outside of every file; {_SAME}"
        )
    found, twice = _edges(planned, bases)
    if twice is not None:
        raise _broken("an overlap", twice, files, bases.tolist())
    both = torch.cat([found, _edges(tensors, bases)[0]])
    edges, counts = torch.unique(both, return_counts=True)
    alone = edges[counts == 1]
    if len(alone):
        raise _broken("a gap", int(alone[0]), files, bases.tolist())


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


def _broken(what: str, position: int, files: Sequence[File], bases: Sequence[int]) -> VerifyError:
    number = bisect_right(bases, position) - 1
    file, byte = files[number], position - bases[number]
    for placed in file.tensors:
        if placed.offset <= byte < placed.offset + placed.size:
            return VerifyError(
                f"{file.name}: expected each byte of tensor '{placed.saved.name}' "
                f"{placed.saved.shape} from one rank, found {what} at byte {byte}; {_SAME}"
            )
    return VerifyError(
        f"{file.name}: expected bytes of tensors only, found a part outside of every tensor at "
        f"byte {byte}; {_SAME}"
    )
