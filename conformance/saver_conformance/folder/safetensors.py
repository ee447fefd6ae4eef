"""A strict reader and a small writer of the safetensors format.

The suite reads what savers wrote with its own parser, so that a mistake of the safetensors library
cannot hide a mistake of a saver that uses it. Nothing in a file is trusted: sizes are compared with
the size of the file before anything is read, and every defect is named with its byte offset.

Layout of a file: 8 bytes, the length of the header as a little-endian unsigned integer; the header,
a JSON object; the tensors' bytes, without gaps.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

from saver_conformance.folder.regular_file import opened
from saver_conformance.folder.untrusted_json import UntrustedJsonError, parse_object
from saver_conformance.observation.observation import Tensor
from saver_conformance.safe_text import quoted

# Bits of one element, by safetensors' name of the type.
DTYPE_BITS: Mapping[str, int] = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}

# The library refuses longer headers (safetensors/src/tensor.rs, MAX_HEADER_SIZE).
MAX_HEADER_BYTES = 100_000_000

_LENGTH_BYTES = 8
_ALIGNMENT = 8
_METADATA_KEY = "__metadata__"


class SafetensorsError(ValueError):
    """A file is not a valid safetensors file.

    Attributes:
        path: the file.
        offset: where in the file the defect lies, in bytes.
        defect: ``header``: the header cannot be understood; ``tiling``: it can, but the tensors'
            spans do not fit their shapes, each other or the file.
        reason: what was expected and what was found.
    """

    def __init__(
        self, path: Path, offset: int, defect: Literal["header", "tiling"], reason: str
    ) -> None:
        self.path = path
        self.offset = offset
        self.defect: Literal["header", "tiling"] = defect
        self.reason = reason
        super().__init__(f"{path.name}: {reason} (at byte {offset})")


@dataclass(frozen=True, slots=True)
class Span:
    """One tensor of a header.

    Attributes:
        dtype: safetensors' name of the type.
        shape: the logical shape.
        begin: first byte, counted from the start of the data.
        end: one past the last byte.
    """

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def nbytes(self) -> int:
        """Length in bytes."""
        return self.end - self.begin

    @property
    def numel(self) -> int:
        """Number of elements."""
        return _product(self.shape)


@dataclass(frozen=True, slots=True)
class Header:
    """What the header of a file says.

    Attributes:
        metadata: the free-form ``__metadata__`` mapping; empty when there is none.
        tensors: spans by name, in the order of the header.
        data_start: where the tensors' bytes begin in the file.
        file_size: in bytes.
    """

    metadata: Mapping[str, str]
    tensors: Mapping[str, Span]
    data_start: int
    file_size: int


def read_header(path: Path) -> Header:
    """Read and validate the header of the file at ``path``.

    Raises:
        SafetensorsError: the file breaks the format.
        OSError: the file cannot be opened, or is no regular file.
    """
    with opened(path) as descriptor:
        size = os.fstat(descriptor).st_size
        prefix = os.pread(descriptor, _LENGTH_BYTES, 0)
        if len(prefix) < _LENGTH_BYTES:
            _reject(
                path, 0, "header", f"expected an 8-byte header length, the file has {size} bytes"
            )
        length = int.from_bytes(prefix, "little")
        room = min(MAX_HEADER_BYTES, size - _LENGTH_BYTES)
        if length > room:
            _reject(
                path, 0, "header", f"the header's length is {length}, at most {room} is possible"
            )
        text = os.pread(descriptor, length, _LENGTH_BYTES)
    entries = _header_object(path, text)
    metadata = _metadata(path, entries.pop(_METADATA_KEY, {}))
    data_start = _LENGTH_BYTES + length
    tensors = {name: _span(path, name, plain) for name, plain in entries.items()}
    _require_tiling(path, tensors, data_start, size)
    return Header(metadata=metadata, tensors=tensors, data_start=data_start, file_size=size)


def read_tensor(path: Path, header: Header, name: str) -> Tensor:
    """Read one tensor of the file at ``path``, whose header is ``header``.

    The bytes are read rather than mapped: a saver's process that is still alive can truncate a
    file, and touching a mapped page that is gone would kill the process.

    Raises:
        SafetensorsError: the file has become shorter since the header was read.
        OSError: the file cannot be read.
    """
    span = header.tensors[name]
    with opened(path) as descriptor:
        data, start = b"", header.data_start + span.begin
        while len(data) < span.nbytes:
            # A single call returns at most about 2 GiB on Linux.
            more = os.pread(descriptor, span.nbytes - len(data), start + len(data))
            if not more:
                break
            data += more
    if len(data) != span.nbytes:
        offset = header.data_start + span.begin + len(data)
        _reject(path, offset, "tiling", f"the file ends inside of tensor {name!r}")
    return Tensor(dtype=span.dtype, shape=span.shape, data=data)


def write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write ``tensors`` to ``path``, in their order, with the metadata ``{"format": "pt"}``.

    Raises:
        ValueError: a tensor's bytes do not fit its dtype and shape.
    """
    header: dict[str, Any] = {_METADATA_KEY: {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + len(memoryview(tensor.data).cast("B"))
        needed = nbytes(tensor.dtype, tensor.shape)
        if end - begin != needed:
            raise ValueError(f"{name}: {end - begin} bytes, its dtype and shape need {needed}")
        header[name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(_LENGTH_BYTES, "little"))
        stream.write(text)
        for tensor in tensors.values():
            stream.write(tensor.data)


def nbytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes that a tensor of this dtype and shape takes; more than any file has, if it is more.

    Raises:
        ValueError: the type is unknown, or its elements do not end on a byte.
    """
    if dtype not in DTYPE_BITS:
        raise ValueError(f"unknown dtype {dtype!r}")
    bits = DTYPE_BITS[dtype] * _product(shape)
    if bits % 8:
        raise ValueError(f"{bits} bits of {dtype} do not end on a byte")
    return bits // 8


def _product(shape: tuple[int, ...]) -> int:
    """The number of elements; a number above 2**64 if it is that large."""
    if 0 in shape:
        return 0
    product = 1
    for size in shape:
        product *= size
        if product >> 64:
            break  # a hostile shape of a million sizes would keep the processor for hours
    return product


def _reject(path: Path, offset: int, defect: Literal["header", "tiling"], reason: str) -> NoReturn:
    raise SafetensorsError(path, offset, defect, reason)


def _header_object(path: Path, text: bytes) -> dict[str, Any]:
    if not text.startswith(b"{"):
        _reject(
            path, _LENGTH_BYTES, "header", f"the header begins with {text[:1]!r}, expected b'{{'"
        )

    try:
        return parse_object(text)
    except UntrustedJsonError as error:
        _reject(path, _LENGTH_BYTES + error.offset, "header", f"the header {error.reason}")


def _metadata(path: Path, plain: Any) -> dict[str, str]:
    if not isinstance(plain, dict) or not all(isinstance(value, str) for value in plain.values()):
        _reject(path, _LENGTH_BYTES, "header", f"{_METADATA_KEY} does not map strings to strings")
    return plain


def _span(path: Path, name: str, plain: Any) -> Span:
    def reject(reason: str) -> NoReturn:
        _reject(path, _LENGTH_BYTES, "header", f"tensor {quoted(name)}: {reason}")

    try:
        name.encode()
    except UnicodeEncodeError:
        reject("the name holds half of a surrogate pair")
    if not isinstance(plain, dict) or set(plain) != {"dtype", "shape", "data_offsets"}:
        reject("expected an object with dtype, shape and data_offsets")
    dtype, shape, offsets = plain["dtype"], plain["shape"], plain["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        reject(f"unknown dtype {quoted(dtype)}")
    if not isinstance(shape, list) or not all(_is_size(size) for size in shape):
        reject("the shape is no list of unsigned 64-bit integers")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_size, offsets)):
        reject("data_offsets is no pair of unsigned 64-bit integers")
    return Span(dtype=dtype, shape=tuple(shape), begin=offsets[0], end=offsets[1])


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 64


def _require_tiling(path: Path, tensors: Mapping[str, Span], data_start: int, size: int) -> None:
    """Every span fits its shape, and together they cover the data without gap or overlap."""
    covered = 0

    def reject(name: str, reason: str, kind: str = "") -> NoReturn:
        _reject(path, data_start + covered, "tiling", f"{kind}tensor {quoted(name)} {reason}")

    for name, span in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if span.end < span.begin:
            reject(name, f"ends at {span.end}, before it begins")
        if span.begin != covered:
            kind = "overlap: " if span.begin < covered else "gap: "
            reject(name, f"begins at {span.begin} of the data, expected {covered}", kind)
        try:
            needed = nbytes(span.dtype, span.shape)
        except ValueError as error:
            reject(name, f"does not fit its bytes: {error}")
        if span.nbytes != needed:
            what = f"{span.dtype}{quoted(list(span.shape))}"
            reject(name, f"has {span.nbytes} bytes, {what} needs {needed}")
        covered = span.end
    if data_start + covered != size:
        end = data_start + covered
        _reject(path, end, "tiling", f"the tensors end at byte {end}, the file at {size}")
