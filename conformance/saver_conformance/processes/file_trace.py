"""What each rank does to the files of a folder during a save, by tracing its system calls.

What a rank writes through a memory mapping is not seen: the kernel is not called for it.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from os.path import normpath
from pathlib import Path

from saver_conformance.observation.file_operation import FileOperation, joined
from saver_conformance.processes import strace
from saver_conformance.processes.time_limit import TimeLimit

ATTACH_LIMIT = 30.0
"""Seconds for strace to attach to all threads of all ranks."""

_UNFINISHED = " <unfinished ...>"
_RESUMED = re.compile(r"(\d+) +<\.\.\. \w+ resumed>(.*)")
_CALL = re.compile(r"\d+ +(\w+)\((.*)\) += (\d+)")
_PLACE = re.compile(r'(?:(?:AT_FDCWD|\d+)<([^>]*)>, )?"([^"]*)"')
_DESCRIPTOR = re.compile(r"(\d+)<([^>]*)>")
_AT = {
    "pwrite64": re.compile(r", (\d+)$"),
    "pwritev": re.compile(r", (\d+)$"),
    "pwritev2": re.compile(r", (\d+), [^,]+$"),
    "copy_file_range": re.compile(r">, \[(\d+)\][^<]*$"),
}
"""Where a call names the place that it writes at; otherwise the file goes on."""


class Tracers:
    """Tracers of all ranks, from ``attach`` to ``read``."""

    def __init__(self, pids: Sequence[int], folder: Path) -> None:
        self._pids, self._logs = pids, [folder / f"rank-{pid}.strace" for pid in pids]
        self._running: list[subprocess.Popen[bytes]] = []

    def attach(self) -> str:
        """Begin to trace; the text says why that is impossible, and is empty otherwise."""
        if not strace.is_available():
            return strace.MISSING
        for pid, log in zip(self._pids, self._logs, strict=True):
            command = [*strace.options(log, more=strace.MOVING), str(pid)]
            self._running.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        time_limit = TimeLimit(ATTACH_LIMIT)
        while time_limit.left() > 0:
            if any(tracer.poll() is not None for tracer in self._running):
                break
            if all(map(strace.is_traced, self._pids)):
                return ""
            time.sleep(0.01)
        self.detach()
        return "strace could not attach to the ranks; is ptrace permitted?"

    def detach(self) -> None:
        """End the tracers; the ranks go on."""
        for tracer in self._running:
            tracer.terminate()
            tracer.wait()
        self._running.clear()

    def read(self, folder: Path) -> tuple[tuple[FileOperation, ...], ...]:
        """What each rank did to files in ``folder``."""
        return tuple(
            tuple(joined(read_operations(log.read_text(errors="replace"), folder)))
            for log in self._logs
        )


def read_operations(trace: str, folder: Path) -> Iterator[FileOperation]:
    """The operations in a trace that concern files in ``folder``, calls that failed left out."""
    places: dict[str, int] = {}
    for line in _whole_lines(trace):
        match = _CALL.match(line)
        if match is None:
            continue
        for operation in _operations(match[1], match[2], int(match[3]), places):
            if operation.path.startswith(f"{folder}/"):
                yield operation


def _operations(
    name: str, arguments: str, result: int, places: dict[str, int]
) -> Iterator[FileOperation]:
    """What one call does; ``places`` has where each open file goes on, and is kept so."""
    if name in strace.OPENING:
        yield from _opened(name, arguments, result, places)
    elif name in strace.WRITING or name in strace.MOVING:
        yield from _moved(name, arguments, result, places)
    elif name in ("ftruncate", "truncate"):
        described = _DESCRIPTOR.match(arguments)
        path = described[2] if described else _paths(arguments)[0]
        if arguments.endswith(", 0"):
            yield FileOperation("truncates", path)
    elif paths := _paths(arguments):
        if name.startswith("rename"):
            yield FileOperation("renames", paths[-1])
        elif name in ("unlink", "unlinkat", "rmdir"):
            yield FileOperation("removes", paths[0])
        elif name in strace.MAKING or name.startswith(("link", "symlink")):
            yield FileOperation("creates", paths[-1])


def _opened(
    name: str, arguments: str, descriptor: int, places: dict[str, int]
) -> Iterator[FileOperation]:
    places.pop(str(descriptor), None)
    if "O_APPEND" not in arguments:  # the kernel gives each of those its own bytes
        places[str(descriptor)] = 0
    paths = _paths(arguments)
    if paths and (name == "creat" or "O_TRUNC" in arguments):
        yield FileOperation("truncates", paths[0])
    elif paths and "O_EXCL" in arguments:
        yield FileOperation("creates", paths[0])


def _moved(
    name: str, arguments: str, result: int, places: dict[str, int]
) -> Iterator[FileOperation]:
    described = _DESCRIPTOR.findall(arguments)
    if not described:
        return
    # copy_file_range names the file that is read first, all others the one that is written.
    descriptor, path = described[-1 if name == "copy_file_range" else 0]
    if name == "close":
        places.pop(descriptor, None)
    elif name == "lseek":
        if descriptor in places:
            places[descriptor] = result
    else:
        at = _AT[name].search(arguments) if name in _AT else None
        start = int(at[1]) if at else places.get(descriptor)
        if start is None:  # of a file that was open before, or of a copied descriptor
            return
        if at is None:
            places[descriptor] = start + result
        if name in strace.WRITING and result:
            yield FileOperation("writes", path, start, start + result)


def _paths(arguments: str) -> list[str]:
    return [
        normpath(f"{base or ''}/{path}" if path[:1] != "/" else path)
        for base, path in _PLACE.findall(arguments)
    ]


def _whole_lines(trace: str) -> Iterator[str]:
    begun: dict[str, str] = {}
    for line in trace.splitlines():
        if line.endswith(_UNFINISHED):
            begun[line.split()[0]] = line.removesuffix(_UNFINISHED)
        elif resumed := _RESUMED.match(line):
            yield begun.pop(resumed[1], "") + resumed[2]
        else:
            yield line
