"""What each rank does to the files of a folder during a save, by tracing its system calls.

What a rank writes through a memory mapping is not seen: the kernel is not called for it.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from os.path import normpath
from pathlib import Path

from saver_conformance import tracing
from saver_conformance.time_limit import TimeLimit

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


@dataclass(frozen=True, slots=True, order=True)
class Deed:
    """Something done to a file.

    Attributes:
        what: ``creates`` (what was not there), ``truncates`` (to nothing), ``renames``,
            ``removes`` or ``writes``.
        path: of the file; for ``renames``, the new one.
        start: for ``writes``, the first byte.
        end: the byte after the last.
    """

    what: str
    path: str
    start: int = 0
    end: int = 0

    def conflicts_with(self, other: Deed) -> bool:
        """Whether two ranks that do this to a file get in each other's way."""
        if (self.what, self.path) != (other.what, other.path):
            return False
        return self.what != "writes" or max(self.start, other.start) < min(self.end, other.end)


class Tracers:
    """Tracers of all ranks, from ``attach`` to ``read``."""

    def __init__(self, pids: Sequence[int], folder: Path) -> None:
        self._pids, self._logs = pids, [folder / f"rank-{pid}.strace" for pid in pids]
        self._running: list[subprocess.Popen[bytes]] = []

    def attach(self) -> str:
        """Begin to trace; the text says why that is impossible, and is empty otherwise."""
        if not tracing.is_available():
            return tracing.MISSING
        for pid, log in zip(self._pids, self._logs, strict=True):
            command = [*tracing.options(log, more=tracing.MOVING), str(pid)]
            self._running.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        time_limit = TimeLimit(ATTACH_LIMIT)
        while time_limit.left() > 0:
            if any(tracer.poll() is not None for tracer in self._running):
                break
            if all(map(tracing.is_traced, self._pids)):
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

    def read(self, folder: Path) -> tuple[tuple[Deed, ...], ...]:
        """What each rank did to files in ``folder``."""
        return tuple(
            tuple(joined(read_deeds(log.read_text(errors="replace"), folder))) for log in self._logs
        )


def read_deeds(trace: str, folder: Path) -> Iterator[Deed]:
    """The deeds in a trace that concern files in ``folder``, calls that failed left out."""
    places: dict[str, int] = {}
    for line in _whole_lines(trace):
        match = _CALL.match(line)
        if match is None:
            continue
        for deed in _deeds(match[1], match[2], int(match[3]), places):
            if deed.path.startswith(f"{folder}/"):
                yield deed


def joined(deeds: Iterable[Deed]) -> Iterator[Deed]:
    """Each deed once, in order, with bytes written one after the other as one deed."""
    last: Deed | None = None
    for deed in sorted(set(deeds)):
        row = last and deed.what == last.what == "writes" and deed.path == last.path
        if last and row and deed.start <= last.end:
            last = Deed("writes", last.path, last.start, max(last.end, deed.end))
            continue
        if last:
            yield last
        last = deed
    if last:
        yield last


def conflicts(deeds: Sequence[Sequence[Deed]]) -> Iterator[tuple[int, int, Deed]]:
    """Pairs of ranks that do the same to a file, with what both do; one for each file and deed."""
    for (first, mine), (second, theirs) in combinations(enumerate(deeds), 2):
        told: set[tuple[str, str]] = set()
        others: dict[tuple[str, str], list[Deed]] = {}
        for deed in theirs:
            others.setdefault((deed.what, deed.path), []).append(deed)
        for deed in mine:
            key = deed.what, deed.path
            for other in others.get(key, ()):
                if key not in told and deed.conflicts_with(other):
                    told.add(key)
                    start, end = max(deed.start, other.start), min(deed.end, other.end)
                    yield first, second, Deed(deed.what, deed.path, start, end)


def _deeds(name: str, arguments: str, result: int, places: dict[str, int]) -> Iterator[Deed]:
    """What one call does; ``places`` has where each open file goes on, and is kept so."""
    if name in tracing.OPENING:
        yield from _opened(name, arguments, result, places)
    elif name in tracing.WRITING or name in tracing.MOVING:
        yield from _moved(name, arguments, result, places)
    elif name in ("ftruncate", "truncate"):
        described = _DESCRIPTOR.match(arguments)
        path = described[2] if described else _paths(arguments)[0]
        if arguments.endswith(", 0"):
            yield Deed("truncates", path)
    elif paths := _paths(arguments):
        if name.startswith("rename"):
            yield Deed("renames", paths[-1])
        elif name in ("unlink", "unlinkat", "rmdir"):
            yield Deed("removes", paths[0])
        elif name in tracing.MAKING or name.startswith(("link", "symlink")):
            yield Deed("creates", paths[-1])


def _opened(name: str, arguments: str, descriptor: int, places: dict[str, int]) -> Iterator[Deed]:
    places.pop(str(descriptor), None)
    if "O_APPEND" not in arguments:  # the kernel gives each of those its own bytes
        places[str(descriptor)] = 0
    paths = _paths(arguments)
    if paths and (name == "creat" or "O_TRUNC" in arguments):
        yield Deed("truncates", paths[0])
    elif paths and "O_EXCL" in arguments:
        yield Deed("creates", paths[0])


def _moved(name: str, arguments: str, result: int, places: dict[str, int]) -> Iterator[Deed]:
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
        if name in tracing.WRITING and result:
            yield Deed("writes", path, start, start + result)


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
