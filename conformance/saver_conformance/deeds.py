"""What each rank does to the files of a folder during a save, by tracing its system calls."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os.path import normpath
from pathlib import Path

from saver_conformance import tracing

ATTACH_LIMIT = 10.0
"""Seconds for strace to attach to all threads of all ranks."""

_UNFINISHED = " <unfinished ...>"
_RESUMED = re.compile(r"(\d+) +<\.\.\. \w+ resumed>(.*)")
_CALL = re.compile(r"\d+ +(\w+)\((.*)\) += (\d+)")
_PLACE = re.compile(r'(?:(?:AT_FDCWD|\d+)<([^>]*)>, )?"([^"]*)"')
_AT_A_PLACE = {
    "pwrite64": re.compile(r"\d+<([^>]*)>, .*, (\d+)"),
    "pwritev": re.compile(r"\d+<([^>]*)>, .*, (\d+)"),
    "pwritev2": re.compile(r"\d+<([^>]*)>, .*, (\d+), \w+"),
}
"""The file and the first byte in the arguments of calls that write at a given place."""


@dataclass(frozen=True, slots=True, order=True)
class Deed:
    """Something done to a file.

    Attributes:
        what: ``truncates``, ``renames``, ``removes`` or ``writes``.
        path: of the file; for ``renames``, the new one.
        start: for ``writes`` at a given place, the first byte.
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
            command = [*tracing.options(log), str(pid)]
            self._running.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        deadline = time.monotonic() + ATTACH_LIMIT
        while time.monotonic() < deadline:
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
            tuple(sorted(set(read_deeds(log.read_text(errors="replace"), folder))))
            for log in self._logs
        )


def read_deeds(trace: str, folder: Path) -> Iterator[Deed]:
    """The deeds in a trace that concern files in ``folder``, calls that failed left out."""
    for line in _whole_lines(trace):
        match = _CALL.match(line)
        if match is None:
            continue
        for deed in _deeds(match[1], match[2], int(match[3])):
            if deed.path.startswith(f"{folder}/"):
                yield deed


def _deeds(name: str, arguments: str, result: int) -> Iterator[Deed]:
    if name in _AT_A_PLACE and (written := _AT_A_PLACE[name].fullmatch(arguments)):
        start = int(written[2])
        yield Deed("writes", written[1], start, start + result)
        return
    places = [
        normpath(f"{base or ''}/{path}" if path[:1] != "/" else path)
        for base, path in _PLACE.findall(arguments)
    ]
    if not places:
        return
    if name in tracing.OPENING and (name == "creat" or "O_TRUNC" in arguments):
        yield Deed("truncates", places[0])
    elif name.startswith("rename"):
        yield Deed("renames", places[-1])
    elif name in ("unlink", "unlinkat", "rmdir"):
        yield Deed("removes", places[0])


def _whole_lines(trace: str) -> Iterator[str]:
    begun: dict[str, str] = {}
    for line in trace.splitlines():
        if line.endswith(_UNFINISHED):
            begun[line.split()[0]] = line.removesuffix(_UNFINISHED)
        elif resumed := _RESUMED.match(line):
            yield begun.pop(resumed[1], "") + resumed[2]
        else:
            yield line
