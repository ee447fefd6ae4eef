"""Operations on files, as a trace shows them, and which of two ranks conflict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations


@dataclass(frozen=True, slots=True, order=True)
class Deed:
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

    def conflicts_with(self, other: Deed) -> bool:
        """Whether two ranks that do this to a file get in each other's way."""
        if (self.what, self.path) != (other.what, other.path):
            return False
        return self.what != "writes" or max(self.start, other.start) < min(self.end, other.end)


def joined(deeds: Iterable[Deed]) -> Iterator[Deed]:
    """Each deed once, in order, with bytes written one after the other as one deed."""
    last: Deed | None = None
    for deed in sorted(set(deeds)):
        row = last and deed.what == last.what == "writes" and deed.path == last.path
        if last and row and deed.start <= last.end:
            last = Deed("writes", last.path, last.start, max(last.end, deed.end))
            continue
        if last:
            yield last
        last = deed
    if last:
        yield last


def conflicts(deeds: Sequence[Sequence[Deed]]) -> Iterator[tuple[int, int, Deed]]:
    """Pairs of ranks that do the same to a file, with what both do; one for each file and deed."""
    for (first, mine), (second, theirs) in combinations(enumerate(deeds), 2):
        told: set[tuple[str, str]] = set()
        others: dict[tuple[str, str], list[Deed]] = {}
        for deed in theirs:
            others.setdefault((deed.what, deed.path), []).append(deed)
        for deed in mine:
            key = deed.what, deed.path
            for other in others.get(key, ()):
                if key not in told and deed.conflicts_with(other):
                    told.add(key)
                    start, end = max(deed.start, other.start), min(deed.end, other.end)
                    yield first, second, Deed(deed.what, deed.path, start, end)
