"""Files that nobody vouches for: regular ones only, and JSON within limits."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MAX_JSON = 100_000_000
"""Bytes of JSON that are read, as the safetensors library has it for a header."""

MAX_VALUES = 10_000_000
"""Values in it: a short text can ask for many times its length in objects."""

_LONGEST_NAME = 120


class UnreadableError(ValueError):
    """A file is not what its name says; the message does not name it."""


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """Open a regular file to read from it, and nothing that would block or has no end.

    Raises:
        UnreadableError: it is no regular file.
        OSError: it cannot be opened.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise UnreadableError("expected a regular file, found something else")
        yield handle
    finally:
        os.close(handle)


def read_bytes(path: Path, limit: int = MAX_JSON) -> bytes:
    """Read a small file.

    Raises:
        UnreadableError: it is no regular file, or larger than the limit.
        OSError: it cannot be read.
    """
    with opened(path) as handle:
        size = os.fstat(handle).st_size
        if size > limit:
            raise UnreadableError(f"expected at most {limit} bytes, found {size}")
        return os.pread(handle, size, 0)


def parse_object(text: bytes) -> dict[str, Any]:
    """Parse an object of JSON.

    Raises:
        UnreadableError: it is no JSON, no object, names a key twice or holds too many values.
    """
    if text.count(b",") + text.count(b"[") + text.count(b"{") > MAX_VALUES:
        raise UnreadableError(f"expected at most {MAX_VALUES} values of JSON, found more")
    try:
        found = json.loads(text.decode(), object_pairs_hook=_unique)
    except UnreadableError:
        raise
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"expected JSON, found none: {error!s:.200}") from error
    if not isinstance(found, dict):
        raise UnreadableError(f"expected an object of JSON, found a {type(found).__name__}")
    return found


def quoted(name: str) -> str:
    """A name that a file gives, safe to print: escaped, and not longer than a line."""
    text = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..."
    return repr(text)


def printable(path: str) -> str:
    """The name of a file as it is, or escaped where it would do something to a terminal."""
    return path if path.isprintable() else quoted(path)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise UnreadableError(f"expected each key once, found {quoted(key)} twice")
            seen.add(key)
    return found
