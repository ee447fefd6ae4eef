"""The directory of a zip file whose author is not trusted; only members stored as they are.

``zipfile`` allocates what the file says its directory takes, and inflates; this does neither.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

MAX_DIRECTORY_BYTES = 64 << 20

_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_MAX_COMMENT = 65_535
_IN_EXTRA = 0xFFFF_FFFF
_EXTRA64 = 1


class ZipError(ValueError):
    """A file is no zip file whose members can be read in place."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file in the zip file.

    Attributes:
        header: where its local header begins, in bytes.
        size: in bytes.
    """

    header: int
    size: int


def read_directory(descriptor: int) -> dict[str, Member]:
    """The members by name.

    Raises:
        ZipError: no zip file, a member twice, or one that is compressed or encrypted.
        OSError: the file cannot be read.
    """
    file_size = os.fstat(descriptor).st_size
    begin, size = _find_directory(descriptor, file_size)
    if size > MAX_DIRECTORY_BYTES or begin + size > file_size:
        raise ZipError(f"its directory of {size} bytes at byte {begin} is too large for the file")
    members: dict[str, Member] = {}
    for name, member in _entries(_read(descriptor, begin, size)):
        if name in members:
            raise ZipError("it holds a member twice")
        if member.header + member.size > file_size:
            raise ZipError("a member ends behind the end of the file")
        members[name] = member
    return members


def find_data(descriptor: int, member: Member) -> int:
    """Where the bytes of ``member`` begin in the file.

    Raises:
        ZipError: there is no header of a member, or its bytes would end behind the file.
        OSError: the file cannot be read.
    """
    header = _read(descriptor, member.header, _LOCAL.size)
    magic, *_, name, extra = _LOCAL.unpack(header)
    if magic != b"PK\3\4":
        raise ZipError(f"no member begins at byte {member.header}")
    begin = member.header + _LOCAL.size + int(name) + int(extra)
    # The directory and the member's own header may give its name another length.
    if begin + member.size > os.fstat(descriptor).st_size:
        raise ZipError("a member ends behind the end of the file")
    return begin


def _find_directory(descriptor: int, file_size: int) -> tuple[int, int]:
    """Where the directory begins, and its size."""
    tail_begin = max(0, file_size - _END.size - _MAX_COMMENT)
    tail = _read(descriptor, tail_begin, file_size - tail_begin)
    at = tail.rfind(b"PK\5\6")
    if at < 0 or at + _END.size > len(tail):
        raise ZipError("it is no zip file, as torch.save writes since 1.6")
    *_, size, begin, _ = _END.unpack_from(tail, at)
    locator = tail_begin + at - _LOCATOR.size
    if locator < 0:
        return begin, size
    magic, _, end64, _ = _LOCATOR.unpack(_read(descriptor, locator, _LOCATOR.size))
    if magic != b"PK\6\7":
        return begin, size
    if end64 + _END64.size > file_size:
        raise ZipError("the end of its directory lies behind the end of the file")
    magic, *_, size, begin = _END64.unpack(_read(descriptor, end64, _END64.size))
    if magic != b"PK\6\6":
        raise ZipError(f"no end of a directory stands at byte {end64}")
    return begin, size


def _entries(directory: bytes) -> Iterator[tuple[str, Member]]:
    at = 0
    while at + _ENTRY.size <= len(directory):
        magic, _, _, flags, method, *rest = _ENTRY.unpack_from(directory, at)
        packed, size, name_length, extra_length, comment_length, *_, header = rest[3:]
        if magic != b"PK\1\2":
            raise ZipError(f"byte {at} of its directory begins no entry")
        at += _ENTRY.size
        name = directory[at : at + name_length].decode(errors="backslashreplace")
        extra = directory[at + name_length : at + name_length + extra_length]
        size, packed, header = _large(extra, [size, packed, header])
        at += name_length + extra_length + comment_length
        if method or flags & 1 or size != packed:
            raise ZipError("a member is compressed or encrypted")
        yield name, Member(header, size)
    if at != len(directory):
        raise ZipError("its directory is cut off")


def _large(extra: bytes, values: list[int]) -> list[int]:
    """``values`` with those that take more than 32 bits, which are in the extra field."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        field = extra[at + 4 : at + 4 + length]
        if kind == _EXTRA64:
            numbers = iter(struct.unpack(f"<{len(field) // 8}Q", field[: len(field) // 8 * 8]))
            return [next(numbers, v) if v == _IN_EXTRA else v for v in values]
        at += 4 + length
    return values


def _read(descriptor: int, begin: int, size: int) -> bytes:
    data = os.pread(descriptor, size, begin)
    if len(data) != size:
        raise ZipError(f"it ends before byte {begin + size}")
    return data
