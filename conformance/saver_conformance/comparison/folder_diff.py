"""Two folders by their content, whatever their shards and formats."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from saver_conformance.comparison.settings import FileChange, compare_files
from saver_conformance.comparison.stored import (
    StoredPart,
    StoredTensor,
    UnreadableTensorError,
    read_parts,
)
from saver_conformance.comparison.tensor_change import Advance, Change, are_copies, compare

_MOST_TIED = 100
_MOST_COUNTERPARTS = 1000
"""Few tensors are tied, and each is compared with many."""


@dataclass(frozen=True, slots=True)
class PartDiff:
    """How a model or an adapter that both folders hold differs.

    Attributes:
        label: what it is called.
        tensors: number of tensors in both.
        changed: the tensors that differ, by name.
        only_first: names of tensors in the first folder alone.
        only_second: names of tensors in the second folder alone.
        tied: names that one folder lacks because it holds their counterpart.
        files: the files next to the weights that differ.
        uncompared: what could not be compared, in words.
    """

    label: str
    tensors: int
    changed: Mapping[str, Change]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    tied: tuple[str, ...]
    files: tuple[FileChange, ...]
    uncompared: tuple[str, ...]

    def is_same(self, *, any_dtype: bool = False) -> bool:
        """Whether nothing differs; ``any_dtype``: values that survive a cast are the same."""
        return not (
            any(not (any_dtype and change.keeps_values) for change in self.changed.values())
            or self.only_first
            or self.only_second
            or self.files
            or self.uncompared
        )


@dataclass(frozen=True, slots=True)
class FolderDiff:
    """How two folders differ.

    Attributes:
        first: the first folder.
        second: the second folder.
        formats: the formats of their weights.
        parts: models and adapters that both hold.
        only_first: what the first folder alone holds.
        only_second: what the second folder alone holds.
        nbytes: bytes of the tensors in both folders together.
        any_dtype: whether values that survive a cast are the same.
    """

    first: Path
    second: Path
    formats: tuple[str, str]
    parts: tuple[PartDiff, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    nbytes: int
    any_dtype: bool = False

    @property
    def is_same(self) -> bool:
        """Whether the folders hold the same, and all of it could be compared."""
        if self.only_first or self.only_second or not self.parts:
            return False
        return all(part.is_same(any_dtype=self.any_dtype) for part in self.parts)


Begin = Callable[[int], Advance]
"""Called with the bytes that will be read."""


def diff_folders(
    first: Path,
    second: Path,
    *,
    every: bool = False,
    any_dtype: bool = False,
    begin: Begin | None = None,
) -> FolderDiff:
    """Compare two folders.

    Args:
        first: a folder.
        second: another one.
        every: whether the values of all elements that differ are measured.
        any_dtype: whether values that survive a cast count as the same.
        begin: is told how much will be read, and gives what is told of progress.

    Raises:
        OSError: a folder cannot be listed.
    """
    sides = [{part.label: part for part in read_parts(root)} for root in (first, second)]
    both = [label for label in sides[0] if label in sides[1]]
    total = sum(sides[0][label].nbytes + sides[1][label].nbytes for label in both)
    advance = begin(total) if begin else None
    parts = tuple(
        _diff_parts(sides[0][label], sides[1][label], every=every, advance=advance)
        for label in both
    )
    formats = [
        " and ".join(sorted({part.format for part in side.values() if part.format}))
        for side in sides
    ]
    return FolderDiff(
        first=first,
        second=second,
        formats=(formats[0], formats[1]),
        parts=parts,
        only_first=tuple(label for label in sides[0] if label not in sides[1]),
        only_second=tuple(label for label in sides[1] if label not in sides[0]),
        nbytes=total,
        any_dtype=any_dtype,
    )


def _diff_parts(
    one: StoredPart, other: StoredPart, *, every: bool, advance: Advance | None
) -> PartDiff:
    shared = [name for name in one.tensors if name in other.tensors]
    uncompared = [*_problems(one, "first"), *_problems(other, "second")]
    changed: dict[str, Change] = {}
    for pair in _in_order_of_files(one, shared):
        try:
            change = compare(pair, other.tensors[pair.name], every=every, advance=advance)
        except UnreadableTensorError as error:
            uncompared.append(f"{pair.name}: {error}")
            continue
        if not change.is_equal:
            changed[pair.name] = change
    only = [
        [name for name in side.tensors if name not in counterpart.tensors]
        for side, counterpart in ((one, other), (other, one))
    ]
    tied = {
        name
        for side, names in zip((one, other), only, strict=True)
        for name in names[:_MOST_TIED]
        if _is_tied(side, name, shared)
    }
    return PartDiff(
        label=one.label,
        tensors=len(shared),
        changed=changed,
        only_first=tuple(name for name in only[0] if name not in tied),
        only_second=tuple(name for name in only[1] if name not in tied),
        tied=tuple(sorted(tied)),
        files=tuple(compare_files(one.folder, other.folder)),
        uncompared=tuple(uncompared),
    )


def _is_tied(part: StoredPart, name: str, shared: list[str]) -> bool:
    """Whether a tensor is another one under a second name, as ties are."""
    tensor = part.tensors[name]
    counterparts = [
        part.tensors[other] for other in shared if part.tensors[other].shape == tensor.shape
    ]
    if any(_place(counterpart) == _place(tensor) for counterpart in counterparts):
        return True
    # In safetensors each has bytes of its own; whether they are tied is the configuration's word.
    is_meant = part.folder.settings.get("tie_word_embeddings") is True
    return (
        is_meant
        and len(tensor.shape) > 1
        and any(
            are_copies(tensor, counterpart) for counterpart in counterparts[:_MOST_COUNTERPARTS]
        )
    )


def _place(tensor: StoredTensor) -> tuple[object, ...]:
    return tensor.path, tensor.begin, tensor.shape, tensor.strides, tensor.nbytes > 0 or tensor.name


def _problems(part: StoredPart, which: str) -> Iterator[str]:
    return (f"in the {which} folder: {problem}" for problem in part.problems)


def _in_order_of_files(part: StoredPart, names: list[str]) -> list[StoredTensor]:
    """Tensors in the order in which a disk reads them fastest."""
    found = (part.tensors[name] for name in names)
    return sorted(found, key=lambda tensor: (str(tensor.path), tensor.begin))
