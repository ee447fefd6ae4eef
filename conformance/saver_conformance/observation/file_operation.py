"""Operations on files, as a trace shows them, and which of two ranks conflict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations


@dataclass(frozen=True, slots=True, order=True)
class FileOperation:
    """Something done to a file.

    Attributes:
        what: ``creates`` (what was not there), ``truncates`` (to nothing), ``renames``,
            ``removes`` or ``writes``.
        path: of the file; for ``renames``, the new one.
        start: for ``writes``, the first byte.
        end: the byte after the last.
    """

    what: str
    path: str
    start: int = 0
    end: int = 0

    def conflicts_with(self, other: FileOperation) -> bool:
        """Whether two ranks that do this to a file get in each other's way."""
        if (self.what, self.path) != (other.what, other.path):
            return False
        return self.what != "writes" or max(self.start, other.start) < min(self.end, other.end)


def joined(operations: Iterable[FileOperation]) -> Iterator[FileOperation]:
    """Each operation once, in order, with bytes written one after the other as one operation."""
    last: FileOperation | None = None
    for operation in sorted(set(operations)):
        row = last and operation.what == last.what == "writes" and operation.path == last.path
        if last and row and operation.start <= last.end:
            last = FileOperation("writes", last.path, last.start, max(last.end, operation.end))
            continue
        if last:
            yield last
        last = operation
    if last:
        yield last


def conflicts(
    operations: Sequence[Sequence[FileOperation]],
) -> Iterator[tuple[int, int, FileOperation]]:
    """Pairs of ranks that do the same to a file, with what both do, each operation once."""
    for (first, mine), (second, theirs) in combinations(enumerate(operations), 2):
        told: set[tuple[str, str]] = set()
        others: dict[tuple[str, str], list[FileOperation]] = {}
        for operation in theirs:
            others.setdefault((operation.what, operation.path), []).append(operation)
        for operation in mine:
            key = operation.what, operation.path
            for other in others.get(key, ()):
                if key not in told and operation.conflicts_with(other):
                    told.add(key)
                    start, end = max(operation.start, other.start), min(operation.end, other.end)
                    yield first, second, FileOperation(operation.what, operation.path, start, end)
