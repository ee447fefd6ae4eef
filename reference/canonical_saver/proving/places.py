"""Where the tensors to compare lie in the files, as a layout that a save could have made."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

from canonical_saver.formats.layout import File, PlacedTensor
from canonical_saver.proving.found_tensors import FoundTensor
from canonical_saver.proving.matching import Match

Key = tuple[int, int]
"""Number of a file of the layout, and of a tensor in it."""


@dataclass(frozen=True)
class Places:
    """The layout of what is compared, the same on every rank.

    Attributes:
        files: the layout. A file whose tensors overlap is in it several times.
        matches: for each of its files, whose tensors these are.
        scattered: for a file that stands for one tensor whose elements do not follow each other in
            one file, that tensor.
    """

    files: tuple[File, ...]
    matches: tuple[tuple[Match, ...], ...]
    scattered: dict[int, FoundTensor]

    def segments(self, file: int, start: int, stop: int) -> Iterator[tuple[Key, int, int]]:
        """Yield the tensors that have bytes ``[start, stop)`` of a file, and which of them."""
        tensors = self.files[file].tensors
        number = bisect_right(tensors, start, key=lambda placed: placed.offset) - 1
        while number < len(tensors) and tensors[number].offset < stop:
            placed = tensors[number]
            first, last = max(start, placed.offset), min(stop, placed.offset + placed.size)
            if first < last:
                yield (file, number), first, last
            number += 1

    def key_at(self, file: int, offset: int) -> Key:
        """The tensor that has a byte of a file."""
        return next(key for key, _, _ in self.segments(file, offset, offset + 1))

    def match(self, key: Key) -> Match:
        """What is compared there."""
        return self.matches[key[0]][key[1]]

    def placed(self, key: Key) -> PlacedTensor:
        """Where it lies."""
        return self.files[key[0]].tensors[key[1]]

    def all_keys(self) -> Iterator[Key]:
        """All tensors that are compared."""
        for number, matches in enumerate(self.matches):
            yield from ((number, place) for place in range(len(matches)))


def lay_out(matches: Sequence[Match]) -> Places:
    """Put tensors to compare into files."""
    rows: dict[str, list[list[Match]]] = {}
    scattered: list[Match] = []
    for one in sorted(
        matches, key=lambda match: (match.found.file, match.found.offset, _size(match))
    ):
        if not one.found.in_order:
            scattered.append(one)
            continue
        # Tensors of an archive may share bytes; a file of the layout has each byte once.
        layers = rows.setdefault(one.found.file, [])
        layer = next((known for known in layers if _end(known[-1]) <= one.found.offset), None)
        if layer is None:
            layers.append([one])
        else:
            layer.append(one)
    files = [_file(layer) for layers in rows.values() for layer in layers]
    placed = [tuple(layer) for layers in rows.values() for layer in layers]
    first = len(files)
    for one in scattered:
        tensor = PlacedTensor(one.saved, one.dtype, 0)
        files.append(File(one.found.file, b"", (tensor,), tensor.size))
        placed.append((one,))
    numbered = {first + number: one.found for number, one in enumerate(scattered)}
    return Places(tuple(files), tuple(placed), numbered)


def _file(matches: Sequence[Match]) -> File:
    tensors = tuple(PlacedTensor(one.saved, one.dtype, one.found.offset) for one in matches)
    return File(matches[0].found.file, b"", tensors, _end(matches[-1]))


def _size(match: Match) -> int:
    return prod(match.found.shape) * match.dtype.itemsize


def _end(match: Match) -> int:
    return match.found.offset + _size(match)
