"""Elements that a cast makes infinite: told with their tensor, as no file shows it."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence

import torch

from canonical_saver.formats.layout import File
from canonical_saver.weights.tensors import LocalSlice, elements
from canonical_saver.writing.write_items import WriteBatch


class Overflows:
    """Counts elements that are finite in the model and not in the file.

    One pass over the elements that were cast finds out whether there are any that are not finite;
    the model's own are looked at only then.

    Args:
        files: the layout.
    """

    def __init__(self, files: Sequence[File]) -> None:
        self.counts: Counter[str] = Counter()
        self._files = files
        self._offsets = [[tensor.offset for tensor in file.tensors] for file in files]

    def look(self, batch: WriteBatch, pieces: Sequence[torch.Tensor]) -> None:
        """Look at a batch that was carried to main memory.

        Args:
            batch: where its elements come from and go to.
            pieces: its bytes, one tensor or one for each part.
        """
        if not any(cast for *_, cast in batch.parts):
            return
        sizes = [
            n * (cast or local_slice.data.dtype).itemsize for local_slice, _, n, cast in batch.parts
        ]
        if len(pieces) != len(sizes):
            pieces = torch.split(pieces[0], sizes)
        offset = batch.offset
        for (local_slice, start, length, cast), piece, size in zip(
            batch.parts, pieces, sizes, strict=True
        ):
            if cast is not None and length:
                found = piece.clone() if piece.storage_offset() % cast.itemsize else piece
                if lost := overflowed(local_slice, start, found.view(cast)):
                    self.counts[self._name(batch.file, offset)] += lost
            offset += size

    def _name(self, file: int, offset: int) -> str:
        number = bisect_right(self._offsets[file], offset) - 1
        return self._files[file].tensors[number].saved.name


_LARGEST_OF_SMALL = torch.finfo(torch.float16).max


def overflowed(local_slice: LocalSlice, start: int, found: torch.Tensor) -> int:
    """How many elements of a slice are finite and became something else.

    Args:
        local_slice: the run.
        start: its first element that was cast.
        found: the elements after the cast, in main memory, of shape ``[elements]``.
    """
    low, high = torch.aminmax(_wide(found))
    if bool(low.isfinite() & high.isfinite()):
        return 0
    model_tensor = elements(local_slice, start, len(found)).to("cpu").view(local_slice.data.dtype)
    return int((_wide(model_tensor).isfinite() & ~_wide(found).isfinite()).sum())


def warnings(everyone: Sequence[Counter[str]], dtype: torch.dtype) -> list[str]:
    """Say what overflowed.

    Args:
        everyone: for each rank, the names of tensors and how many of its elements overflowed.
        dtype: what was cast to.
    """
    found: Counter[str] = sum(everyone, Counter())
    wider = "float32" if torch.finfo(dtype).max > _LARGEST_OF_SMALL else "bfloat16"
    return [
        f"'{name}': {count} elements are finite in the model and infinite in {dtype}; save in a "
        f"dtype with a larger range, as {wider}"
        for name, count in sorted(found.items())
    ]


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of a dtype that can be computed with."""
    return tensor.float() if tensor.dtype.itemsize == 1 else tensor
