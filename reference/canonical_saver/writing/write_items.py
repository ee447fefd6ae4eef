"""Which rank writes which bytes of which file, and the proof that nothing is missed.

All of it grows linearly with the tensors and with what this rank holds, so that models of a hundred
thousand tensors on a thousand ranks are planned in seconds.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch

from canonical_saver.errors import VerifyError
from canonical_saver.file_io import MOST_PARTS
from canonical_saver.formats.layout import File, Placed
from canonical_saver.weights.tensors import Run, Source
from canonical_saver.writing.device_copy import PIECE, Part

_SAME = "is it the same model, sharded by its engine alone, on every rank?"

Range = tuple[int, int, int]
"""Number of the file, first byte in it, how many bytes."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """Bytes that this rank writes.

    Attributes:
        file: number of the file.
        offset: first byte in the file.
        run: the elements.
        dtype: their dtype in the file.
    """

    file: int
    offset: int
    run: Run
    dtype: torch.dtype

    @property
    def size(self) -> int:
        """How many bytes."""
        return self.run.length * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Batch:
    """Bytes that are written at once.

    Attributes:
        file: number of the file.
        offset: first byte in the file.
        size: how many bytes.
        parts: whose elements, one behind the other, they are; all on one device.
    """

    file: int
    offset: int
    size: int
    parts: list[Part]


@dataclass(frozen=True, slots=True)
class _Goal:
    """Where elements ``[start, stop)`` of a source go."""

    start: int
    stop: int
    file: int
    offset: int
    dtype: torch.dtype


class Goals:
    """Where the elements of each source go in the files.

    Args:
        files: the layout.
    """

    def __init__(self, files: Sequence[File]) -> None:
        self._of: dict[int, tuple[Source, list[_Goal]]] = {}
        for number, file in enumerate(files):
            for placed in file.tensors:
                for span in placed.entry.spans or ():
                    offset = placed.offset + span.start * placed.dtype.itemsize
                    stop = span.offset + span.length
                    goal = _Goal(span.offset, stop, number, offset, placed.dtype)
                    self._of.setdefault(id(span.source), (span.source, []))[1].append(goal)
        self._reach: dict[int, list[int]] = {}
        for key, (_, goals) in self._of.items():
            goals.sort(key=lambda goal: goal.start)
            # How far any goal up to here reaches: a source may be saved under two names.
            self._reach[key] = list(accumulate((goal.stop for goal in goals), max))

    def sources(self) -> list[Source]:
        """All sources that are written somewhere."""
        return [source for source, _ in self._of.values()]

    def of(self, source: Source, runs: Iterable[Run]) -> Iterator[Transfer]:
        """Yield what it means to write some runs of a source."""
        _, goals = self._of[id(source)]
        reach = self._reach[id(source)]
        for run in runs:
            end = run.start + run.length
            for number in range(bisect_right(reach, run.start), len(goals)):
                goal = goals[number]
                if goal.start >= end:
                    break
                start, stop = max(goal.start, run.start), min(goal.stop, end)
                if start < stop:
                    first = run.offset + start - run.start
                    part = Run(start, stop - start, run.data, first, run.load)
                    offset = goal.offset + (start - goal.start) * goal.dtype.itemsize
                    yield Transfer(goal.file, offset, part, goal.dtype)


def transfers(files: Sequence[File]) -> list[Transfer]:
    """Find all that this rank is to write, in order of files and offsets.

    Args:
        files: the layout.
    """
    goals = Goals(files)
    found = [t for source in goals.sources() for t in goals.of(source, source.runs)]
    found.sort(key=lambda transfer: (transfer.file, transfer.offset))
    return found


def batches(planned: Sequence[Transfer]) -> Iterator[Batch]:
    """Cut and join transfers into batches of at most ``PIECE`` bytes.

    Small tensors that are neighbours in the file make one batch: a system call, or a message to
    another rank, for each would take longer than the bytes.
    """
    current: Batch | None = None
    used = 0
    for transfer in planned:
        run, dtype = transfer.run, transfer.dtype
        cast = dtype if run.data.dtype != dtype else None
        widest = max(dtype.itemsize, run.data.dtype.itemsize)
        start, offset = 0, transfer.offset
        while start < run.length:
            fits = current is not None and (
                (current.file, current.offset + current.size) == (transfer.file, offset)
                and current.parts[0][0].data.device == run.data.device
                and len(current.parts) < MOST_PARTS
                and used + widest <= PIECE
            )
            if current is None or not fits:
                if current is not None:
                    yield current
                current, used = Batch(transfer.file, offset, 0, []), 0
            length = min((PIECE - used) // widest, run.length - start)
            current.parts.append((run, start, length, cast))
            size = length * dtype.itemsize
            current = Batch(current.file, current.offset, current.size + size, current.parts)
            used += length * widest
            start, offset = start + length, offset + size
    if current is not None:
        yield current


def ranges(planned: Sequence[Transfer]) -> list[Range]:
    """Say which bytes will be written, in order, neighbours joined."""
    joined: list[Range] = []
    for transfer in planned:
        file, offset, size = transfer.file, transfer.offset, transfer.size
        if joined and joined[-1][0] == file and joined[-1][1] + joined[-1][2] == offset:
            joined[-1] = (file, joined[-1][1], joined[-1][2] + size)
        elif size:
            joined.append((file, offset, size))
    return joined


def packed(found: Sequence[Range]) -> torch.Tensor:
    """Ranges in the form in which ranks exchange them: int64 of shape ``[ranges, 3]``."""
    return torch.tensor(found, dtype=torch.int64).reshape(-1, 3)


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
    tensors = packed(
        [(n, placed.offset, placed.size) for n, f in enumerate(files) for placed in f.tensors]
    )
    computed = packed([(n, placed.offset, placed.size) for n, placed in _computed(files)])
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
                f"{file.name}: expected each byte of tensor '{placed.entry.name}' "
                f"{placed.entry.shape} from one rank, found {what} at byte {byte}; {_SAME}"
            )
    return VerifyError(
        f"{file.name}: expected bytes of tensors only, found a part outside of every tensor at "
        f"byte {byte}; {_SAME}"
    )


def groups_to_compute(files: Sequence[File]) -> list[list[tuple[int, Placed]]]:
    """Group the tensors that must be computed so that no source is needed by two groups."""
    leader: dict[str, str] = {}

    def find(name: str) -> str:
        while leader.setdefault(name, name) != name:
            leader[name] = leader[leader[name]]
            name = leader[name]
        return name

    computed = _computed(files)
    for _, placed in computed:
        first, *others = sorted(placed.entry.needs)
        for other in others:
            leader[find(other)] = find(first)
    groups: dict[str, list[tuple[int, Placed]]] = {}
    for number, placed in computed:
        groups.setdefault(find(min(placed.entry.needs)), []).append((number, placed))
    return list(groups.values())


def _computed(files: Sequence[File]) -> list[tuple[int, Placed]]:
    """The tensors that must be computed, with the numbers of their files."""
    return [
        (number, placed)
        for number, file in enumerate(files)
        for placed in file.tensors
        if placed.entry.spans is None
    ]
