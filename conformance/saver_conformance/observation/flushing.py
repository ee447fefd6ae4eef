"""Whether files were on disk before they got their names, from what a trace shows.

A file whose writes are not seen, such as through a memory mapping, counts as flushed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class FileEvent:
    """Something that a process did to a file or a folder, whatever its rank.

    Attributes:
        what: ``opens`` (and may create), ``writes``, ``renames``, ``links``, ``makes`` (a folder or
            a link), ``removes``, ``flushes``, or ``flushes all`` that was written before.
        path: of the file; for ``renames`` and ``links``, the new one.
        source: for ``renames`` and ``links``, the older one.
        durable: for ``opens`` and ``writes``, whether what is written goes to the disk at once.
    """

    what: Literal[
        "opens", "writes", "renames", "links", "makes", "removes", "flushes", "flushes all"
    ]
    path: str = ""
    source: str = ""
    durable: bool = False


@dataclass(slots=True)
class _File:
    dirty: bool = False
    durable: bool = False


@dataclass(slots=True)
class Disk:
    """What a power cut would take, after a row of events.

    Attributes:
        files: each file by its path; two paths of one file have the same.
        unready: files that were given the name they have before they were flushed.
        entries: for each folder the names in it that changed since it was flushed.
    """

    existing: set[str] = field(default_factory=set)
    files: dict[str, _File] = field(default_factory=dict)
    unready: set[str] = field(default_factory=set)
    entries: dict[str, set[str]] = field(default_factory=dict)

    def loses(self, path: str) -> bool:
        """Whether bytes of the file at ``path`` may not be on the disk."""
        return path in self.files and self.files[path].dirty

    def do(self, event: FileEvent) -> None:
        """Take one event into account."""
        if event.what in ("opens", "writes"):
            self._write(event)
        elif event.what in ("renames", "links"):
            self._name(event)
        elif event.what == "makes":
            self._enter(event.path)
        elif event.what == "removes":
            self._forget(event.path)
        elif event.what == "flushes":
            if (file := self.files.get(event.path)) is not None:
                file.dirty = False
            self.entries.pop(event.path, None)
        else:
            for file in self.files.values():
                file.dirty = False
            self.entries.clear()

    def _write(self, event: FileEvent) -> None:
        file = self.files.setdefault(event.path, _File())
        if event.what == "opens":
            file.durable |= event.durable
            if event.path not in self.existing:
                self._enter(event.path)
        else:
            file.dirty |= not (file.durable or event.durable)

    def _name(self, event: FileEvent) -> None:
        """Give a file, or a folder with all that is in it, its new name."""
        inside = [p for p in self.files if p == event.source or p.startswith(f"{event.source}/")]
        if event.what == "renames":
            self._forget(event.path)
        for path in inside:
            new = event.path + path.removeprefix(event.source)
            move = event.what == "renames"
            file = self.files[new] = self.files.pop(path) if move else self.files[path]
            self.unready -= {path, new} if move else {new}
            self.unready |= {new} if file.dirty else set()
        if event.what == "renames":
            for folder in [f for f in self.entries if _is_in(f, event.source)]:
                moved = event.path + folder.removeprefix(event.source)
                self.entries[moved] = self.entries.pop(folder)
            gone = {path for path in self.existing if _is_in(path, event.source)}
            self.existing -= gone
            self.existing |= {event.path + path.removeprefix(event.source) for path in gone}
        self._enter(event.path)

    def _enter(self, path: str) -> None:
        folder, _, name = path.rpartition("/")
        self.existing.add(path)
        self.entries.setdefault(folder, set()).add(name)

    def _forget(self, path: str) -> None:
        self.existing = {other for other in self.existing if not _is_in(other, path)}
        for known in [other for other in self.files if _is_in(other, path)]:
            del self.files[known]
            self.unready.discard(known)
        for folder in [other for other in self.entries if _is_in(other, path)]:
            del self.entries[folder]


def replay(events: Iterable[FileEvent], existing: Collection[str]) -> Disk:
    """What a power cut would take after ``events``.

    Args:
        events: in their order, of all processes.
        existing: paths that were there before.
    """
    disk = Disk(set(existing))
    for event in events:
        disk.do(event)
    return disk


def _is_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")
