"""The digest of a model, computed while its bytes are written.

Each rank digests the pieces that it writes from their first byte to their last. A piece of which
several ranks have a part is read back by the one that wrote its first byte, once all have written.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from canonical_saver.errors import VerifyError
from canonical_saver.file_io import as_memoryview
from canonical_saver.formats.layout import File, PlacedTensor
from canonical_saver.formats.safetensors import DTYPE_NAMES
from canonical_saver.writing.model_digest import (
    PIECE,
    TensorDigest,
    begin_leaf,
    digests_json,
    leaf,
    model_digest,
    pieces,
    tensor_digest,
)

if TYPE_CHECKING:
    from canonical_saver.writing.writer import Writer

Key = tuple[int, int, int]
"""Number of a file, of a tensor in it, and of a piece of that."""


class PieceDigests:
    """Digests what a rank writes.

    Args:
        files: the layout.

    Attributes:
        leaves: the digests of the pieces that are complete.
        begun: the pieces whose first byte this rank wrote, and that are not complete.
    """

    def __init__(self, files: Sequence[File]) -> None:
        self._files = files
        self._next: tuple[Key, int] | None = None
        self._hashed: Any = None
        self.leaves: dict[Key, bytes] = {}
        self.begun: set[Key] = set()

    def add(self, file: int, offset: int, parts: Sequence[torch.Tensor]) -> None:
        """Learn of a write.

        Args:
            file: number of the file.
            offset: first byte in it.
            parts: the bytes, one part behind the other.
        """
        tensors = self._files[file].tensors
        for part in parts:
            data = as_memoryview(part)
            while data:
                index = bisect_right(tensors, offset, key=_offset) - 1
                taken = self._take(file, index, offset - tensors[index].offset, data)
                data, offset = data[taken:], offset + taken

    def _take(self, file: int, index: int, inside: int, data: memoryview) -> int:
        """Digest what belongs to one piece; returns how many bytes that is."""
        number = inside // PIECE
        key = (file, index, number)
        end = min((number + 1) * PIECE, self._files[file].tensors[index].size)
        taken = min(len(data), end - inside)
        if inside % PIECE == 0:
            self._hashed = begin_leaf()
            self.begun.add(key)
        elif self._next != (key, inside):
            self._next = None  # another rank has what is before it
            return taken
        self._hashed.update(data[:taken])
        self._next = (key, inside + taken)
        if inside + taken == end:
            self.leaves[key] = self._hashed.digest()
            self.begun.discard(key)
        return taken


def finish(writer: Writer) -> str:
    """Put together the digests of all ranks, after all have written; collective.

    Returns:
        The digest of the model, in hex.

    Raises:
        SaveError: the same on every rank, when it failed on any.
    """
    assert writer.watch is not None
    assert writer.watch.digests is not None
    own = writer.watch.digests
    files = writer.write_plan.files

    def complete() -> dict[Key, bytes]:
        with writer.open(os.O_RDONLY) as handles:
            for file, index, number in sorted(own.begun):
                placed = files[file].tensors[index]
                start, size = number * PIECE, min(PIECE, placed.size - number * PIECE)
                found = os.pread(handles(file), size, placed.offset + start)
                own.leaves[file, index, number] = leaf(found)
        return own.leaves

    def join(_: Any, everyone: list[Mapping[Key, bytes]]) -> str:
        leaves: dict[Key, bytes] = {}
        for found in everyone:
            leaves.update(found)
        tensors = _tensors(files, leaves)
        if writer.write_plan.request.digest == "file":
            path = writer.folder / f"{writer.write_plan.weight_sets[0].stem}.digests.json"
            path.write_text(digests_json(tensors), encoding="utf-8")
        return model_digest(tensors)

    return writer.ranks.step("digest", complete, lambda found: found, join)[1]


def _tensors(files: Sequence[File], leaves: Mapping[Key, bytes]) -> list[TensorDigest]:
    found = []
    for number, file in enumerate(files):
        folder = file.name.rpartition("/")[0]
        for index, placed in enumerate(file.tensors):
            keys = [(number, index, n) for n, _ in enumerate(pieces(placed.size))]
            missing = next((key for key in keys if key not in leaves), None)
            if missing is not None:
                raise VerifyError(
                    f"{file.name}: expected a digest of each piece of '{placed.saved.name}', found "
                    f"none of piece {missing[2]}; save again, and report it"
                )
            name = f"{folder}/{placed.saved.name}" if folder else placed.saved.name
            found.append(
                tensor_digest(
                    name,
                    DTYPE_NAMES.get(placed.dtype, str(placed.dtype)),
                    placed.saved.shape,
                    [leaves[key] for key in keys],
                )
            )
    return found


def _offset(placed: PlacedTensor) -> int:
    return placed.offset
