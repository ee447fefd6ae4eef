"""What the weight files of a folder say about themselves: names, dtypes, shapes and places."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod


@dataclass(frozen=True)
class Chunk:
    """A part of a tensor in a file, as many indices of each dimension as it has there.

    Attributes:
        file: the file, relative to the folder.
        offset: its first byte, counted from the start of the file.
        start: for each dimension the first index.
        shape: for each dimension how many.
    """

    file: str
    offset: int
    start: tuple[int, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class FoundTensor:
    """A tensor in a weight file.

    Attributes:
        name: its name in the file.
        file: the file, relative to the folder.
        dtype: name of its dtype, as safetensors has it.
        shape: its shape.
        offset: its first byte, counted from the start of the file.
        stride: steps between its elements, where they do not lie in row-major order.
        chunks: its parts, where it lies in several files or in a part of one; ``file`` is that of
            the first.
    """

    name: str
    file: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    stride: tuple[int, ...] | None = None
    chunks: tuple[Chunk, ...] = ()

    @property
    def in_order(self) -> bool:
        """Whether its elements follow each other in its file."""
        return self.stride is None and not self.chunks

    def place(self, byte: int, item: int) -> tuple[str, int]:
        """The file that has one of its bytes, and where it lies there.

        Args:
            byte: the byte, counted in row-major order.
            item: bytes of an element.
        """
        left, rest = divmod(byte, item)
        indices: list[int] = []
        for size in reversed(self.shape):
            left, index = divmod(left, size)
            indices.insert(0, index)
        for chunk in self.chunks:
            inside = [i - first for i, first in zip(indices, chunk.start, strict=True)]
            if all(0 <= i < n for i, n in zip(inside, chunk.shape, strict=True)):
                number = 0
                for i, n in zip(inside, chunk.shape, strict=True):
                    number = number * n + i
                return chunk.file, chunk.offset + number * item + rest
        if self.stride is not None:
            number = sum(i * step for i, step in zip(indices, self.stride, strict=True))
            return self.file, self.offset + number * item + rest
        return self.file, self.offset + byte

    @property
    def numel(self) -> int:
        """Number of elements."""
        return prod(self.shape)


@dataclass(frozen=True)
class FoundFile:
    """A weight file as it is on disk, by which ranks know whether they see the same one.

    Attributes:
        name: path relative to the folder.
        size: its bytes.
        modified: when it was last written, in nanoseconds.
    """

    name: str
    size: int
    modified: int


@dataclass(frozen=True)
class FoundWeights:
    """The weights that a loader takes from one place in a folder.

    Attributes:
        folder: the place, relative to the folder; "" is the folder itself.
        tensors: all tensors in them.
        files: the files.
        problems: what is wrong with the files, each with the name of the file.
        others: weight files next to them that are no part of them, and that some reader would take.
        notes: what is worth knowing of the files, and no defect.
    """

    folder: str
    tensors: tuple[FoundTensor, ...] = ()
    files: tuple[FoundFile, ...] = ()
    problems: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
