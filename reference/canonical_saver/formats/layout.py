"""Which tensor lies in which file at which byte: pure functions, the same on every rank.

The bytes are those that ``save_pretrained`` and ``safetensors.torch.save_file`` would write on one
process. They depend on names, dtypes, shapes and the size limit alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch

from canonical_saver.errors import WeightsError
from canonical_saver.weights.saved_tensors import Entry

DTYPE_NAMES: dict[torch.dtype, str] = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e8m0fnu: "F8_E8M0",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
    torch.int16: "I16",
    torch.uint16: "U16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.uint32: "U32",
    torch.float32: "F32",
    torch.complex64: "C64",
    torch.float64: "F64",
    torch.int64: "I64",
    torch.uint64: "U64",
}
"""Names of dtypes in a header, in the order in which safetensors ranks them (it writes the last
first)."""

_RANKING = {dtype: number for number, dtype in enumerate(DTYPE_NAMES)}


@dataclass(frozen=True)
class Placed:
    """One tensor at its place.

    Attributes:
        entry: what to write.
        dtype: dtype in the file.
        offset: its first byte, counted from the start of the file.
    """

    entry: Entry
    dtype: torch.dtype
    offset: int

    @property
    def size(self) -> int:
        """Bytes of the tensor in the file."""
        return prod(self.entry.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class File:
    """One weight file.

    Attributes:
        name: path relative to the output folder.
        header: the first bytes of the file.
        tensors: what follows, in order of offsets, without gaps.
        size: bytes of the whole file.
    """

    name: str
    header: bytes
    tensors: tuple[Placed, ...]
    size: int


def stored_dtype(entry: Entry, dtype: torch.dtype | None) -> torch.dtype:
    """The dtype of a tensor in its file: its own, unless a floating-point one is to be cast."""
    cast = dtype is not None and entry.dtype.is_floating_point and not entry.fixed
    return dtype if cast and dtype is not None else entry.dtype


def stored_size(entries: Sequence[Entry], dtype: torch.dtype | None) -> int:
    """Bytes of all these tensors in their files."""
    return sum(prod(entry.shape) * stored_dtype(entry, dtype).itemsize for entry in entries)


def safetensors_header(tensors: Sequence[tuple[str, torch.dtype, tuple[int, ...]]]) -> bytes:
    """Make the header that safetensors writes for tensors already in file order.

    Returns:
        Length and text, padded with spaces to a multiple of 8 bytes.
    """
    described: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, dtype, shape in tensors:
        end = position + prod(shape) * dtype.itemsize
        described[name] = {
            "dtype": DTYPE_NAMES[dtype],
            "shape": list(shape),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(described, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def plain_file(name: str, entries: Sequence[Entry], dtype: torch.dtype | None) -> File:
    """Lay out one file of nothing but tensors, in their order."""
    placed: list[Placed] = []
    position = 0
    for entry in entries:
        placed.append(Placed(entry, stored_dtype(entry, dtype), position))
        position += placed[-1].size
    return File(name, b"", tuple(placed), position)


def safetensors_file(name: str, entries: Sequence[Entry], dtype: torch.dtype | None) -> File:
    """Lay out one file.

    Raises:
        WeightsError: a dtype that the format does not have.
    """
    stored = [(entry, stored_dtype(entry, dtype)) for entry in entries]
    for entry, kind in stored:
        if kind not in DTYPE_NAMES:
            raise WeightsError(
                f"'{entry.name}': expected a dtype that safetensors can hold, found {kind}; save "
                "in the torch format"
            )
    stored.sort(key=lambda pair: (-_RANKING[pair[1]], pair[0].name.encode()))
    header = safetensors_header([(entry.name, kind, entry.shape) for entry, kind in stored])
    position = len(header)
    placed = []
    for entry, kind in stored:
        placed.append(Placed(entry, kind, position))
        position += placed[-1].size
    return File(name, header, tuple(placed), position)


def split(
    entries: Sequence[Entry], max_shard_size: int, dtype: torch.dtype | None
) -> list[list[Entry]]:
    """Fill files in order, each up to ``max_shard_size`` bytes of tensors.

    A larger tensor has a file of its own, the one being filled goes on behind it: that is how
    ``huggingface_hub.split_torch_state_dict_into_shards`` counts. A file in between that would have
    nothing in it is left out.
    """
    shards: list[list[Entry]] = []
    current: list[Entry] = []
    used = 0
    for entry in entries:
        size = prod(entry.shape) * stored_dtype(entry, dtype).itemsize
        if size > max_shard_size:
            shards.append([entry])
            continue
        if used + size > max_shard_size and current:
            shards.append(current)
            current, used = [], 0
        current.append(entry)
        used += size
    if current or not shards:
        shards.append(current)
    return shards


def shard_names(stem: str, ending: str, count: int) -> list[str]:
    """Names of the files of one save: without a number if there is only one."""
    if count == 1:
        return [f"{stem}{ending}"]
    return [f"{stem}-{number:05d}-of-{count:05d}{ending}" for number in range(1, count + 1)]


def index(files: Sequence[File]) -> bytes:
    """Make the index of several shards, formatted as transformers does."""
    placed = [(tensor, file.name.rpartition("/")[2]) for file in files for tensor in file.tensors]
    content = {
        "metadata": {
            "total_parameters": sum(prod(tensor.entry.shape) for tensor, _ in placed),
            "total_size": sum(tensor.size for tensor, _ in placed),
        },
        "weight_map": {tensor.entry.name: name for tensor, name in placed},
    }
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()
