"""Each rank compares what it holds with the bytes of the files, a piece at a time."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, Self

import torch

from canonical_saver.errors import ProofError
from canonical_saver.file_io import as_memoryview
from canonical_saver.proving.chunks import fill
from canonical_saver.proving.places import Key, Places
from canonical_saver.proving.safe_files import UnreadableError, opened
from canonical_saver.weights.tensors import LocalSlice, elements
from canonical_saver.writing.read_back import equal, read_into
from canonical_saver.writing.write_items import WriteBatch, WriteItem, batches
from canonical_saver.writing.writer import carried

CHUNK = 2**18
"""Bytes that are read and compared at a time."""

AHEAD = 4
"""Batches that the kernel is asked for before they are compared."""

MOST_OPEN = 128
"""Files that are open at once: a model may have more than a process can open."""

SHOWN = 16
"""Bytes of each side that a difference shows."""

_NARROWER = (torch.bfloat16, torch.float16, torch.float32)


@dataclass(frozen=True)
class Mismatch:
    """What of a tensor differs on one rank.

    Attributes:
        first: the first such byte of the tensor.
        count: how many bytes.
        expected: bytes of the model from there on, in hex.
        found: bytes of the file from there on, in hex.
    """

    first: int
    count: int
    expected: str
    found: str


@dataclass(frozen=True)
class Evidence:
    """What explains a difference, on one rank.

    Attributes:
        zero: all that is in the file at this rank's part is zero.
        casts: the dtypes that this rank's part was rounded to on the way into the file, each a
            possible one.
        mine: digest of the beginning of this rank's part in memory.
        there: digest of what the file has in its place.
    """

    zero: bool = True
    casts: frozenset[torch.dtype] = frozenset()
    mine: bytes = b""
    there: bytes = b""


class FoundBytes:
    """The bytes of the files of a layout, each file opened when it is first needed.

    Args:
        root: the folder.
        places: the layout.
    """

    def __init__(self, root: Path, places: Places) -> None:
        self._root, self._places = root, places
        self._handles: dict[str, tuple[int, ExitStack]] = {}
        self._tensors: dict[int, torch.Tensor] = {}
        self._closing = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._tensors.clear()
        self._closing.close()

    def expect(self, upcoming: Iterable[WriteBatch]) -> None:
        """Have the kernel begin to read what will be asked for.

        Raises:
            ProofError: a file cannot be opened.
        """
        for batch in upcoming:
            if batch.file not in self._places.scattered:
                handle = self._handle(self._places.files[batch.file].name)
                os.posix_fadvise(handle, batch.offset, batch.size, os.POSIX_FADV_WILLNEED)

    def read(self, file: int, offset: int, buffer: torch.Tensor) -> None:
        """Read bytes of a file of the layout.

        Raises:
            ProofError: they cannot be read.
        """
        name = self._places.files[file].name
        if file not in self._places.scattered:
            self._read(name, offset, buffer)
            return
        try:
            self._put_together(file, offset, buffer)
        except (OSError, UnreadableError) as error:
            raise _unreadable(name, error) from error

    def _read(self, name: str, offset: int, buffer: torch.Tensor) -> None:
        try:
            count = read_into(self._handle(name), offset, buffer)
        except OSError as error:
            raise _unreadable(name, error) from error
        if count < buffer.numel():
            raise ProofError(
                f"{name}: expected bytes up to {offset + buffer.numel()}, found {offset + count}; "
                "was it written while it was read?"
            )

    def _handle(self, name: str) -> int:
        if name not in self._handles:
            if len(self._handles) >= MOST_OPEN:
                self._handles.pop(next(iter(self._handles)))[1].close()
            closing = ExitStack()
            try:
                handle = closing.enter_context(opened(self._root / name))
            except (OSError, UnreadableError) as error:
                raise _unreadable(name, error) from error
            self._handles[name] = handle, self._closing.enter_context(closing)
        return self._handles[name][0]

    def _put_together(self, file: int, offset: int, buffer: torch.Tensor) -> None:
        tensor = self._places.scattered[file]
        item = self._places.files[file].tensors[0].dtype.itemsize
        if tensor.chunks:
            fill(buffer, tensor.chunks, tensor.shape, offset // item, item, self._read)
        else:
            self._gather(file, offset, buffer)

    def _gather(self, file: int, offset: int, buffer: torch.Tensor) -> None:
        """Read elements that do not lie in row-major order, through a map of the file."""
        view = self._tensors.get(file)
        if view is None:
            view = self._tensors[file] = self._mapped(file)
        item = view.element_size()
        local_slice = LocalSlice(0, view.numel(), view)
        buffer.copy_(elements(local_slice, offset // item, buffer.numel() // item))

    def _mapped(self, file: int) -> torch.Tensor:
        tensor = self._places.scattered[file]
        dtype = self._places.files[file].tensors[0].dtype
        stride = tensor.stride or ()
        span = 1 + sum((n - 1) * step for n, step in zip(tensor.shape, stride, strict=True))
        path = self._root / tensor.file
        if tensor.offset % dtype.itemsize:
            raise UnreadableError(f"elements that begin at byte {tensor.offset}")
        size = os.fstat(self._handle(tensor.file)).st_size
        mapped = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
        flat = mapped[tensor.offset :][: span * dtype.itemsize].view(dtype)
        return flat.as_strided(tensor.shape, stride)


@dataclass
class Comparison:
    """What this rank compares, and what came of it.

    Attributes:
        root: the folder.
        places: the layout.
        items: what this rank writes in a save, of which it says why it differs.
        mismatches: what differs.
        evidence: what explains it, for tensors that were converted on this rank.
        bytes: how many bytes were compared.
    """

    root: Path
    places: Places
    items: Sequence[WriteItem]
    mismatches: dict[Key, Mismatch] = field(default_factory=dict)
    evidence: dict[Key, Evidence] = field(default_factory=dict)
    bytes: int = 0

    def compare(self, items: Sequence[WriteItem]) -> None:
        """Compare parts of what this rank holds with the files.

        Raises:
            ProofError: a file cannot be read.
        """
        for file, offset, found, mine in self._chunks(items):
            if not equal(found, mine):
                self._differ(file, offset, found, mine)
            self.bytes += mine.numel()

    def compare_converted(self, item: WriteItem) -> None:
        """Compare a tensor that was converted on this rank, and find out what explains it."""
        self.compare([item])
        key = self.places.key_at(item.file, item.offset) if item.size else None
        if key in self.mismatches:
            assert key is not None
            self.evidence[key] = replace(self._examine([item], key, 0), mine=b"", there=b"")

    def differing_among(self, items: Sequence[WriteItem]) -> set[Key]:
        """The tensors that differ here, and of which some items are a part."""
        return set(self._items_of(list(self.mismatches), items))

    def again(self, keys: Set[Key]) -> dict[Key, Mismatch]:
        """Compare some tensors once more, by what this rank writes in a save.

        Returns:
            All that differs now.

        Raises:
            ProofError: a file cannot be read.
        """
        for key in keys:
            self.mismatches.pop(key, None)
        compared = self.bytes
        for items in self._items_of(list(keys), self.items).values():
            self.compare(items)
        self.bytes = compared
        return self.mismatches

    def held(self, keys: Sequence[Key]) -> dict[Key, int]:
        """How many bytes of some tensors this rank compares."""
        return {
            key: sum(i.size for i in items)
            for key, items in self._items_of(keys, self.items).items()
        }

    def examine(self, limits: Mapping[Key, int]) -> dict[Key, Evidence]:
        """Find out what explains differences.

        Args:
            limits: for each tensor, how many bytes of each rank's part are to be digested.
        """
        found = {
            key: self._examine(items, key, limits[key])
            for key, items in self._items_of(list(limits), self.items).items()
        }
        return found | self.evidence

    def _items_of(
        self, keys: Sequence[Key], items: Sequence[WriteItem]
    ) -> dict[Key, list[WriteItem]]:
        wanted, found = set(keys), dict[Key, list[WriteItem]]()
        for item in items if wanted else ():
            if item.size:
                key = self.places.key_at(item.file, item.offset)
                if key in wanted:
                    found.setdefault(key, []).append(item)
        return found

    def _chunks(
        self, items: Sequence[WriteItem]
    ) -> Iterator[tuple[int, int, torch.Tensor, torch.Tensor]]:
        """Yield number of file, offset, the bytes there, and those that should be there.

        They are few enough for a processor's cache: what was read is compared without going through
        main memory once more.
        """
        buffer = torch.empty(CHUNK, dtype=torch.uint8)
        with FoundBytes(self.root, self.places) as files:
            ahead = batches(items)
            files.expect(islice(ahead, AHEAD))
            for batch, pieces in carried(items):
                files.expect(islice(ahead, 1))
                offset = batch.offset
                for mine in chain.from_iterable(torch.split(piece, CHUNK) for piece in pieces):
                    found = buffer[: mine.numel()]
                    files.read(batch.file, offset, found)
                    yield batch.file, offset, found, mine
                    offset += mine.numel()

    def _differ(self, file: int, offset: int, found: torch.Tensor, piece: torch.Tensor) -> None:
        for key, first, last in self.places.segments(file, offset, offset + piece.numel()):
            there, mine = (
                found[first - offset : last - offset],
                piece[first - offset : last - offset],
            )
            differing = there != mine
            count = int(differing.sum())
            if not count:
                continue
            place = int(differing.to(torch.uint8).argmax())
            known = self.mismatches.get(key)
            start = first + place - self.places.placed(key).offset
            if known is None or start < known.first:
                shown = [_hex(side[place : place + SHOWN]) for side in (mine, there)]
                count += known.count if known is not None else 0
                self.mismatches[key] = Mismatch(start, count, *shown)
            else:
                self.mismatches[key] = replace(known, count=known.count + count)

    def _examine(self, items: Sequence[WriteItem], key: Key, limit: int) -> Evidence:
        dtype = self.places.match(key).dtype
        casts = {one for one in _NARROWER if one.itemsize < dtype.itemsize}
        if not dtype.is_floating_point:
            casts = set()
        zero, left = True, limit
        mine, there = hashlib.sha256(), hashlib.sha256()
        for _, _, there_now, piece in self._chunks(items):
            zero = zero and _is_zero(there_now, dtype)
            casts = {one for one in casts if _rounded(piece, there_now, dtype, one)}
            _digest(mine, piece, left)
            _digest(there, there_now, left)
            left = max(left - piece.numel(), 0)
        return Evidence(zero, frozenset(casts), mine.digest(), there.digest())


def _unreadable(name: str, error: Exception) -> ProofError:
    return ProofError(f"{name}: expected to read it, found {error}")


def _is_zero(found: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether all elements are zero, of either sign."""
    if not dtype.is_floating_point:
        return not bool(found.any())
    values = found.view(dtype)
    if dtype.itemsize == 1:  # these cannot be compared
        values = values.float()
    return not bool((values != 0).any())


def _rounded(piece: torch.Tensor, part: torch.Tensor, dtype: torch.dtype, to: torch.dtype) -> bool:
    """Whether a part of a file has the elements of a piece, rounded to a dtype on the way."""
    return equal(piece.view(dtype).to(to).to(dtype).view(torch.uint8), part)


def _digest(hashed: Any, piece: torch.Tensor, limit: int) -> None:
    if limit:
        hashed.update(as_memoryview(piece[:limit]))


def _hex(piece: torch.Tensor) -> str:
    return bytes(as_memoryview(piece.contiguous())).hex()
