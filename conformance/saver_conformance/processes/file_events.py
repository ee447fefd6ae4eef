"""What all ranks of a save did to files, whatever folder they are in, from their traces."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from saver_conformance.observation.file_trace import FileTrace
from saver_conformance.observation.flushing import FileEvent
from saver_conformance.processes import strace
from saver_conformance.processes.traced_calls import TracedCall, read_traced_calls

ELSEWHERE = ".saver-conformance-elsewhere"
"""Folder, in the case's, for copies of files that a save left outside of the output folder.

No saver has a folder of this name next to its own.
"""
LARGEST_COPY = 64 << 20
"""Bytes of such a file at most; the models of traced cases are much smaller."""

_FOR_WRITING = re.compile(r"O_(WRONLY|RDWR|CREAT|TRUNC)\b")
_DURABLE = re.compile(r"\b(O_SYNC|O_DSYNC|RWF_SYNC|RWF_DSYNC)\b")
_NO_FILES = ("/proc/", "/sys/", "/dev/")
_SHARED_MEMORY = "/dev/shm/"


def read_trace(logs: Sequence[Path], output: Path) -> FileTrace:
    """What a save did to files, with copies of those that it left outside of ``output``.

    Args:
        logs: traces with times, one for each rank.
        output: the output folder; the copies go into a folder next to it.
    """
    events = read_events([log.read_text(errors="replace") for log in logs])
    paths = {event.path for event in events if event.what in ("opens", "renames", "links", "makes")}
    left = sorted(path for path in paths if _is_left(path, output))
    copies: dict[str, Path] = {}
    folder = output.with_name(ELSEWHERE)
    for number, path in enumerate(left):
        copy = folder / str(number)
        if Path(path).is_file() and Path(path).stat().st_size <= LARGEST_COPY:
            folder.mkdir(exist_ok=True)
            shutil.copyfile(path, copy)
            copies[path] = copy
    return FileTrace(tuple(events), tuple(left), copies)


def read_events(traces: Sequence[str]) -> list[FileEvent]:
    """The events of several traces in the order in which they began."""
    timed = [
        (call.at, event)
        for trace in traces
        for call in read_traced_calls(trace)
        for event in _events(call)
    ]
    return [event for _, event in sorted(timed, key=lambda pair: pair[0])]


def _is_left(path: str, output: Path) -> bool:
    outside = path != str(output) and not path.startswith(f"{output}/")
    file = path.startswith(_SHARED_MEMORY) or not path.startswith(_NO_FILES)
    return outside and file and Path(path).exists()


def _events(call: TracedCall) -> Iterator[FileEvent]:
    """What one call does."""
    name, arguments = call.name, call.arguments
    if name in strace.FLUSHING:  # whether a file system can do it or not
        yield from _flushes(call)
    elif call.result < 0:
        return
    elif name in strace.WRITING or name in ("ftruncate", "fallocate"):
        if described := call.descriptors:
            path = described[-1 if name == "copy_file_range" else 0][1]
            yield FileEvent("writes", path, durable=_DURABLE.search(arguments) is not None)
    elif paths := call.paths:
        yield from _names(call, paths)


def _flushes(call: TracedCall) -> Iterator[FileEvent]:
    if call.name in ("fsync", "fdatasync"):
        yield from (FileEvent("flushes", path) for _, path in call.descriptors[:1])
    elif call.name != "msync" or "MS_SYNC" in call.arguments:
        # Which file is mapped at an address is not known: the saver has the benefit of the doubt.
        yield FileEvent("flushes all")


def _names(call: TracedCall, paths: Sequence[str]) -> Iterator[FileEvent]:
    """What a call does that names its files by their paths."""
    name, arguments = call.name, call.arguments
    if name in strace.OPENING:
        if name == "creat" or _FOR_WRITING.search(arguments):
            durable = _DURABLE.search(arguments) is not None
            yield FileEvent("opens", paths[0], durable=durable)
            if name == "creat" or "O_TRUNC" in arguments:
                yield FileEvent("writes", paths[0])
    elif name == "truncate":
        yield FileEvent("writes", paths[0])
    elif name.startswith("rename"):
        yield FileEvent("renames", paths[-1], paths[0])
    elif name in ("link", "linkat"):
        yield FileEvent("links", paths[-1], paths[0])
    elif name in ("unlink", "unlinkat", "rmdir"):
        yield FileEvent("removes", paths[0])
    elif name in strace.MAKING or name.startswith("symlink"):
        yield FileEvent("makes", paths[-1])
