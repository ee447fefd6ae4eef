"""The tensors of a folder as a loader would take them, each with the place of its bytes."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from saver_conformance.comparison import rank_shards
from saver_conformance.comparison.torch_archive import TorchArchiveError, read_archive
from saver_conformance.folder.layout import (
    SINGLE,
    UnreadableJsonError,
    layout_of,
    read_index,
)
from saver_conformance.folder.regular_file import opened
from saver_conformance.folder.safetensors import DTYPE_BITS, SafetensorsError, read_header
from saver_conformance.folder_check.folder import Folder
from saver_conformance.folder_check.formats import (
    PICKLED_ADAPTER,
    PICKLED_INDEX,
    RANK_SHARD,
    is_variant,
)
from saver_conformance.folder_check.formats import unusual as unusual_names
from saver_conformance.folder_check.parts import parts_of

BLOCK_BYTES = 1 << 20
MAX_STRIDED_BYTES = 256 << 20
"""Storages of tensors whose elements do not lie in order are read whole, if they are no larger."""

_MAX_STRIDED_ROWS = 1 << 22

PICKLED_MODEL = "pytorch_model.bin"
_MAX_FILES = 10_000


class UnreadableTensorError(ValueError):
    """The bytes of a tensor cannot be read; the message says why."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in a file.

    Attributes:
        name: as the file has it.
        dtype: safetensors' name of the type.
        shape: the logical shape.
        path: the file.
        begin: where its first element begins in the file, in bytes.
        strides: elements from one index of a dimension to the next; None where the elements lie
            one after the other.
        span: bytes in the file from its first element to its last.
        parts: its parts, where each rank wrote one; ``path`` is the file of the first.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    begin: int
    span: int
    strides: tuple[int, ...] | None = None
    parts: tuple[rank_shards.Part, ...] = ()

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of its elements."""
        return self.numel * DTYPE_BITS[self.dtype] // 8


Read = Callable[[int, int], bytes]
"""Reads bytes of a tensor, from one place to another, counted from its first."""


class TensorBytes:
    """The logical bytes of a tensor, whose file stays open."""

    def __init__(self, tensor: StoredTensor) -> None:
        self._tensor = tensor
        self._opened = opened(tensor.path)
        self._descriptor = -1
        self._gathered: bytes | None = None

    def __enter__(self) -> TensorBytes:
        try:
            self._descriptor = self._opened.__enter__()
        except OSError as error:
            raise UnreadableTensorError(f"{self._tensor.path.name}: {error}") from error
        return self

    def __exit__(self, *error: object) -> None:
        self._opened.__exit__(None, None, None)

    def read(self, begin: int, end: int) -> bytes:
        """The bytes from ``begin`` to ``end``.

        Raises:
            UnreadableTensorError: the file is shorter by now, or cannot be read.
        """
        if self._tensor.parts:
            return self._put_together(begin, end)
        if self._tensor.strides is None:
            return self._pread(begin, end)
        if self._gathered is None:
            self._gathered = self._gather(self._tensor.strides)
        return self._gathered[begin:end]

    def blocks(self) -> Iterator[bytes]:
        """All bytes in blocks of 1 MiB, the last one shorter."""
        for begin in range(0, self._tensor.nbytes, BLOCK_BYTES):
            yield self.read(begin, min(begin + BLOCK_BYTES, self._tensor.nbytes))

    def _put_together(self, begin: int, end: int) -> bytes:
        """Read what lies in the files of several ranks, each opened for one read."""
        tensor, item = self._tensor, DTYPE_BITS[self._tensor.dtype] // 8
        first, last = begin // item, -(-end // item)
        out = bytearray((last - first) * item)
        rank_shards.fill(memoryview(out), tensor.parts, tensor.shape, first, item, _read_part)
        return bytes(out[begin - first * item : end - first * item])

    def _pread(self, begin: int, end: int) -> bytes:
        at = self._tensor.begin + begin
        return _pread(self._descriptor, self._tensor.path, at, end - begin)

    def _gather(self, strides: tuple[int, ...]) -> bytes:
        tensor, item = self._tensor, DTYPE_BITS[self._tensor.dtype] // 8
        rows = math.prod(tensor.shape[:-1])
        if max(tensor.span, tensor.nbytes) > MAX_STRIDED_BYTES or rows > _MAX_STRIDED_ROWS:
            raise UnreadableTensorError(
                f"its {tensor.nbytes} bytes do not lie in order in {tensor.path.name}"
            )
        storage = memoryview(self._pread(0, tensor.span))
        gathered = bytearray(tensor.nbytes)
        *outer, row = tensor.shape
        *outer_strides, step = strides
        width = row * item
        at = 0
        for index in itertools.product(*map(range, outer)):
            first = item * sum(i * s for i, s in zip(index, outer_strides, strict=True))
            for byte in range(item if step != 1 else 0):
                last = first + byte + (row - 1) * step * item + 1
                source = storage[first + byte : last]
                gathered[at + byte : at + width : item] = (
                    source[:: step * item] if step else bytes(source[:1]) * row
                )
            if step == 1:
                gathered[at : at + width] = storage[first : first + width]
            at += width
        return bytes(gathered)


def _read_part(path: Path, begin: int, count: int) -> bytes:
    try:
        with opened(path) as descriptor:
            return _pread(descriptor, path, begin, count)
    except OSError as error:
        raise UnreadableTensorError(f"{path.name}: {error}") from error


def _pread(descriptor: int, path: Path, begin: int, count: int) -> bytes:
    try:
        data = os.pread(descriptor, count, begin)
        while len(data) < count:  # one call returns at most about 2 GiB
            more = os.pread(descriptor, count - len(data), begin + len(data))
            if not more:
                raise UnreadableTensorError(f"{path.name} ends inside of it")
            data += more
    except OSError as error:
        raise UnreadableTensorError(f"{path.name}: {error}") from error
    return data


@dataclass(frozen=True)
class StoredPart:
    """A model or an adapter in a folder.

    Attributes:
        folder: the folder, as the audit looks at it.
        place: the name of the folder inside of the compared one; empty for itself.
        tensors: by name.
        problems: what could not be read, in words.
        format: ``safetensors``, ``torch``, ``shards of ranks``, or empty where there are no
            weights.
    """

    folder: Folder
    place: str
    tensors: Mapping[str, StoredTensor]
    problems: tuple[str, ...]
    format: str

    @property
    def is_adapter(self) -> bool:
        """Whether it is an adapter of PEFT."""
        return self.folder.is_adapter

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @cached_property
    def label(self) -> str:
        """What it is called in messages."""
        kind = "adapter" if self.is_adapter else "model"
        return f"{kind} {self.place}" if self.place else kind


def read_parts(root: Path) -> tuple[StoredPart, ...]:
    """What ``root`` holds; of the weights only headers are read.

    Raises:
        OSError: ``root`` cannot be listed.
    """
    parts = (read_part(folder) for folder in parts_of(root).folders)
    return tuple(part for part in parts if part.tensors or part.problems)


def read_part(folder: Folder) -> StoredPart:
    """The tensors of one model or adapter."""
    place = folder.expected.folder
    tensors: dict[str, StoredTensor] = {}
    problems: list[str] = []
    wanted = _files(folder, problems)
    if wanted and all(map(RANK_SHARD.fullmatch, wanted)):
        tensors = _of_ranks([folder.folder / file for file in wanted], problems)
        return StoredPart(folder, place, tensors, tuple(problems), "shards of ranks")
    for file, names in wanted.items():
        found = _read_file(folder.folder / file, problems)
        for name, tensor in found.items():
            if names is None or name in names:
                if name in tensors:
                    problems.append(f"{tensor.path.name} holds {name!r} once more")
                else:
                    tensors[name] = tensor
        missing = [name for name in names or () if name not in found]
        if missing and found:
            problems.append(f"{file} lacks {len(missing)} tensors of the index: {missing[0]!r}")
    kinds = {"safetensors" if file.endswith(".safetensors") else "torch" for file in wanted}
    return StoredPart(folder, place, tensors, tuple(problems), " and ".join(sorted(kinds)))


def _of_ranks(paths: list[Path], problems: list[str]) -> dict[str, StoredTensor]:
    headers = {}
    for path in paths:
        try:
            headers[path] = read_header(path)
        except SafetensorsError as error:
            problems.append(str(error))
        except OSError as error:
            problems.append(f"{path.name} cannot be read: {error.strerror or error}")
    found, wrong = rank_shards.join(headers)
    problems += wrong
    return {
        name: StoredTensor(
            *(name, whole.dtype, whole.shape, whole.parts[0].path, whole.parts[0].begin, 0),
            parts=whole.parts,
        )
        for name, whole in found.items()
    }


def _files(folder: Folder, problems: list[str]) -> dict[str, frozenset[str] | None]:
    """The files that a loader takes, with the tensors that it takes from each; None: all."""
    listing = folder.listing
    if folder.is_adapter:
        safe = dict.fromkeys(folder.own_files)
        return safe or dict.fromkeys(name for name in (PICKLED_ADAPTER,) if name in listing)
    if SINGLE in listing:
        return {SINGLE: None}
    problems += [problem.reason for problem in folder.saved.problems if problem.defect == "index"]
    if folder.index is not None:
        return _indexed(folder.index.weight_map, problems)
    safe = dict.fromkeys(
        name for name in listing if (layout_of(name) == "sharded" and name.endswith(".safetensors"))
    )
    if safe:
        return safe
    if PICKLED_MODEL in listing:
        return {PICKLED_MODEL: None}
    if PICKLED_INDEX in listing:
        try:
            return _indexed(read_index(folder.folder / PICKLED_INDEX).weight_map, problems)
        except UnreadableJsonError as error:
            problems.append(str(error))
    others = [name for name in unusual_names(tuple(listing)) if not is_variant(name)]
    return dict.fromkeys(others)


def _indexed(
    weight_map: Mapping[str, str], problems: list[str]
) -> dict[str, frozenset[str] | None]:
    names: dict[str, set[str]] = {}
    for name, file in weight_map.items():
        # An index can name any path; only what lies next to it is opened.
        if "/" in file or file in ("", ".", "..") or "\0" in file:
            problems.append(f"the index names {file!r}, which is no file beside it")
        else:
            names.setdefault(file, set()).add(name)
        if len(names) > _MAX_FILES or len(problems) > _MAX_FILES:
            problems.append(f"the index names more than {_MAX_FILES} files")
            break
    return {file: frozenset(found) for file, found in sorted(names.items())}


def _read_file(path: Path, problems: list[str]) -> dict[str, StoredTensor]:
    try:
        if path.name.endswith(".safetensors"):
            header = read_header(path)
            return {
                name: StoredTensor(
                    name, span.dtype, span.shape, path, header.data_start + span.begin, span.nbytes
                )
                for name, span in header.tensors.items()
            }
        return {
            name: StoredTensor(
                name, found.dtype, found.shape, path, found.begin, found.nbytes, found.strides
            )
            for name, found in read_archive(path).items()
        }
    except (SafetensorsError, TorchArchiveError) as error:
        problems.append(str(error))
    except OSError as error:
        problems.append(f"{path.name} cannot be read: {error.strerror or error}")
    return {}
