"""The header of a safetensors file that nobody vouches for."""

from __future__ import annotations

import os
from math import prod
from pathlib import Path
from typing import Any, TypeGuard

from canonical_saver.formats.safetensors import DTYPE_NAMES
from canonical_saver.proving.found_tensors import FoundTensor
from canonical_saver.proving.safe_files import (
    MAX_JSON,
    UnreadableError,
    opened,
    parse_object,
    quoted,
)

_LENGTH = 8
_METADATA = "__metadata__"
_BITS = {name: dtype.itemsize * 8 for dtype, name in DTYPE_NAMES.items()}
_BITS |= {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}
_MOST = 1 << 63


def read_header(folder: Path, file: str) -> list[FoundTensor]:
    """Read what a safetensors file holds, see :func:`read_file`."""
    return read_file(folder, file)[0]


def read_file(folder: Path, file: str) -> tuple[list[FoundTensor], dict[str, Any]]:
    """Read what a safetensors file holds, without its tensors.

    Args:
        folder: the folder.
        file: the file, relative to it.

    Returns:
        The tensors, and the metadata.

    Raises:
        UnreadableError: the header does not describe the bytes of the file.
        OSError: the file cannot be read.
    """
    with opened(folder / file) as handle:
        size = os.fstat(handle).st_size
        prefix = os.pread(handle, _LENGTH, 0)
        length = int.from_bytes(prefix, "little")
        room = min(MAX_JSON, size - _LENGTH)
        if len(prefix) < _LENGTH or length > room:
            raise UnreadableError(
                f"expected a header of at most {max(room, 0)} bytes, found {length} announced"
            )
        text = os.pread(handle, length, _LENGTH)
    described = parse_object(text)
    metadata = described.pop(_METADATA, None)
    start = _LENGTH + length
    found = [_tensor(file, name, value, start) for name, value in described.items()]
    _require_tiling(found, start, size)
    return found, metadata if isinstance(metadata, dict) else {}


def nbytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor, whose dtype safetensors knows.

    Raises:
        UnreadableError: its elements do not end on a byte, or nothing is that large.
    """
    if len(shape) > 64 or any(size >= _MOST for size in shape):
        raise UnreadableError("expected a shape of a tensor, found one that no tensor has")
    bits = _BITS[dtype] * prod(shape)
    if bits % 8 or bits >= _MOST:
        raise UnreadableError("expected a shape whose elements end on a byte, found another one")
    return bits // 8


def _tensor(file: str, name: str, value: Any, start: int) -> FoundTensor:
    if not isinstance(value, dict):
        raise UnreadableError(f"{quoted(name)}: expected an object, found {type(value).__name__}")
    dtype, shape, offsets = (value.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise UnreadableError(f"{quoted(name)}: expected a dtype, found {quoted(str(dtype))}")
    if not are_sizes(shape) or not are_sizes(offsets) or len(offsets) != 2:
        raise UnreadableError(f"{quoted(name)}: expected a shape and a pair of data_offsets")
    if offsets[1] - offsets[0] != nbytes(dtype, tuple(shape)):
        raise UnreadableError(
            f"{quoted(name)}: expected {nbytes(dtype, tuple(shape))} bytes for its shape, found "
            f"{offsets[1] - offsets[0]}"
        )
    return FoundTensor(name, file, dtype, tuple(shape), start + offsets[0])


def are_sizes(value: Any) -> TypeGuard[list[int]]:
    """Whether something that a file gives is a list of sizes or offsets."""
    return isinstance(value, list) and all(type(size) is int and size >= 0 for size in value)


def _require_tiling(tensors: list[FoundTensor], start: int, size: int) -> None:
    position = start
    for tensor in sorted(tensors, key=lambda one: (one.offset, one.numel)):
        if tensor.offset != position:
            raise UnreadableError(
                f"{quoted(tensor.name)}: expected its first byte at {position}, found "
                f"{tensor.offset}"
            )
        position += nbytes(tensor.dtype, tensor.shape)
    if position != size:
        raise UnreadableError(f"expected a file of {position} bytes, found {size}")
