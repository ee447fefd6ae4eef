"""Configurations and tokenizers of two folders, compared entry by entry."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from saver_conformance.folder.layout import (
    CARD,
    CHAT_TEMPLATES,
    INDEX,
    PROCESSORS,
    UnreadableJsonError,
    belongs_to_save,
    digest,
    layout_of,
    read_json_object,
)
from saver_conformance.folder_check.folder import Folder, list_names
from saver_conformance.safe_text import printable, quoted

KEPT_ENTRIES = 20
"""Differing entries of a file that are kept; the others are counted."""

PROVENANCE = frozenset(
    {"transformers_version", "peft_version", "_name_or_path", "name_or_path", "_commit_hash"}
)
"""Keys that tell what wrote a file and where, and nothing of the model."""

_NOT_COMPARED = frozenset({CARD, "training_args.bin"})
_OLD_NAMES = {"torch_dtype": "dtype"}


@dataclass(frozen=True, slots=True)
class FileChange:
    """How a file next to the weights differs.

    Attributes:
        file: its name.
        count: entries that differ; 1 where the file has no entries.
        entries: the first of them, in words.
    """

    file: str
    count: int
    entries: tuple[str, ...]


def compare_files(one: Folder, other: Folder) -> Iterator[FileChange]:
    """The files next to the weights that differ, in the order of their names."""
    files = [dict(_files(folder)) for folder in (one, other)]
    for name in sorted({**files[0], **files[1]}):
        paths = [found.get(name) for found in files]
        if paths[0] is None or paths[1] is None:
            where = "first" if paths[1] is None else "second"
            yield FileChange(name, 1, (f"only in the {where} folder",))
        elif change := _compare(name, paths[0], paths[1]):
            yield change


def _files(folder: Folder) -> Iterator[tuple[str, Path]]:
    for name, entry in folder.listing.items():
        path = folder.folder / name
        if entry.kind == "file" and _is_compared(name):
            yield name, path
        elif entry.kind == "folder" and name == CHAT_TEMPLATES.rstrip("/"):
            try:
                inside = list_names(path)
            except OSError:
                continue
            yield from (
                (f"{name}/{item}", path / item)
                for item, found in inside.items()
                if found.kind == "file"
            )


def _is_compared(name: str) -> bool:
    if name in _NOT_COMPARED or name == INDEX or layout_of(name):
        return False
    return belongs_to_save(name) or name in PROCESSORS or name.endswith(".py")


def _compare(name: str, one: Path, other: Path) -> FileChange | None:
    try:
        if digest(one) == digest(other):
            return None
    except OSError as error:
        return FileChange(name, 1, (f"not compared, it cannot be read: {error}",))
    if name.endswith(".json"):
        try:
            plain = [read_json_object(path) for path in (one, other)]
        except UnreadableJsonError as error:
            return FileChange(name, 1, (f"the bytes differ, and {error}",))
        differences = _differences(plain[0], plain[1])
        kept = tuple(islice(differences, KEPT_ENTRIES))
        return FileChange(name, len(kept) + sum(1 for _ in differences), kept) if kept else None
    return FileChange(name, 1, ("the bytes differ",))


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    """The entries that differ, in words, in their order."""
    pending: list[Iterator[tuple[str, Any, Any]]] = [iter([("", one, other)])]
    while pending:
        if (item := next(pending[-1], None)) is None:
            pending.pop()
            continue
        path, a, b = item
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            pending.append(_entries(path, _normal(a), _normal(b)))
        elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
            pending.append(_items(path, a, b))
        elif not _same(a, b):
            yield f"{path}: {_show(a)} in the first, {_show(b)} in the second"


def _entries(
    path: str, a: Mapping[str, Any], b: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    for key in chain(a, (key for key in b if key not in a)):
        if key not in PROVENANCE:
            yield _join(path, key), a.get(key, _ABSENT), b.get(key, _ABSENT)


def _items(path: str, a: list[Any], b: list[Any]) -> Iterator[tuple[str, Any, Any]]:
    return ((_join(path, str(at)), x, y) for at, (x, y) in enumerate(zip(a, b, strict=True)))


class _Absent:
    """The value of a key that is not there."""


_ABSENT = _Absent()


def _normal(plain: Mapping[str, Any]) -> Mapping[str, Any]:
    return {_OLD_NAMES.get(key, key): value for key, value in plain.items()}


def _join(path: str, key: str) -> str:
    name = printable(key[:200])
    return f"{path}.{name}" if path else name


def _same(a: Any, b: Any) -> bool:
    # 1, 1.0 and true are equal to Python, and not to everybody who reads the file.
    if isinstance(a, bool) != isinstance(b, bool):
        return False
    if isinstance(a, list | Mapping) or isinstance(b, list | Mapping):
        return isinstance(a, type(b)) and not a and not b
    return bool(a == b) or (a != a and b != b)


def _show(value: Any) -> str:
    if isinstance(value, _Absent):
        return "absent"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return printable(quoted(value))
