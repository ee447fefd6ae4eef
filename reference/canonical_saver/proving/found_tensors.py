"""What the weight files of a folder say about themselves: names, dtypes, shapes and places."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod


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
    """

    name: str
    file: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    stride: tuple[int, ...] | None = None

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
    """

    folder: str
    tensors: tuple[FoundTensor, ...] = ()
    files: tuple[FoundFile, ...] = ()
    problems: tuple[str, ...] = ()
    others: tuple[str, ...] = field(default=())
