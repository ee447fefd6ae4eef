"""What each rank does to the files of a folder during a save, by tracing its system calls.

What a rank writes through a memory mapping is not seen: the kernel is not called for it.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from saver_conformance.observation.file_operation import FileOperation, joined
from saver_conformance.processes import strace
from saver_conformance.processes.time_limit import TimeLimit
from saver_conformance.processes.traced_calls import TracedCall, read_traced_calls

ATTACH_LIMIT = 30.0
"""Seconds for strace to attach to all threads of all ranks."""

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
        self._pids = pids
        self.logs = [folder / f"rank-{pid}.strace" for pid in pids]
        """The trace of each rank."""
        self._running: list[subprocess.Popen[bytes]] = []

    def attach(self) -> str:
        """Begin to trace; the text says why that is impossible, and is empty otherwise."""
        if not strace.is_available():
            return strace.MISSING
        for pid, log in zip(self._pids, self.logs, strict=True):
            more = (*strace.MOVING, *strace.FLUSHING)
            command = [*strace.options(log, more=more, timed=True), str(pid)]
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
            for log in self.logs
        )


def read_operations(trace: str, folder: Path) -> Iterator[FileOperation]:
    """The operations in a trace that concern files in ``folder``, calls that failed left out."""
    places: dict[str, int] = {}
    for call in read_traced_calls(trace):
        if call.result < 0:
            continue
        for operation in _operations(call, places):
            if operation.path.startswith(f"{folder}/"):
                yield operation


def _operations(call: TracedCall, places: dict[str, int]) -> Iterator[FileOperation]:
    """What one call does; ``places`` has where each open file goes on, and is kept so."""
    name, arguments = call.name, call.arguments
    if name in strace.OPENING:
        yield from _opened(call, places)
    elif name in strace.WRITING or name in strace.MOVING:
        yield from _moved(call, places)
    elif name in ("ftruncate", "truncate"):
        path = call.descriptors[0][1] if name == "ftruncate" else call.paths[0]
        if arguments.endswith(", 0"):
            yield FileOperation("truncates", path)
    elif paths := call.paths:
        if name.startswith("rename"):
            yield FileOperation("renames", paths[-1])
        elif name in ("unlink", "unlinkat", "rmdir"):
            yield FileOperation("removes", paths[0])
        elif name in strace.MAKING or name.startswith(("link", "symlink")):
            yield FileOperation("creates", paths[-1])


def _opened(call: TracedCall, places: dict[str, int]) -> Iterator[FileOperation]:
    places.pop(str(call.result), None)
    if "O_APPEND" not in call.arguments:  # the kernel gives each of those its own bytes
        places[str(call.result)] = 0
    paths = call.paths
    if paths and (call.name == "creat" or "O_TRUNC" in call.arguments):
        yield FileOperation("truncates", paths[0])
    elif paths and "O_EXCL" in call.arguments:
        yield FileOperation("creates", paths[0])


def _moved(call: TracedCall, places: dict[str, int]) -> Iterator[FileOperation]:
    name, result, described = call.name, call.result, call.descriptors
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
        at = _AT[name].search(call.arguments) if name in _AT else None
        start = int(at[1]) if at else places.get(descriptor)
        if start is None:  # of a file that was open before, or of a copied descriptor
            return
        if at is None:
            places[descriptor] = start + result
        if name in strace.WRITING and result:
            yield FileOperation("writes", path, start, start + result)
