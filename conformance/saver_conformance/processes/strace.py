"""What a process does to files: traced, and made to fail, below any library by ``strace``.

A call that is to fail or to kill is named by its kind and its number among the calls of that kind
in one thread, which is how strace counts.
"""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

MISSING = "strace is not installed; on Debian and Ubuntu: apt-get install strace"

OPENING = ("open", "openat", "openat2", "creat")
MAKING = ("mkdir", "mkdirat")
WRITING = ("write", "pwrite64", "writev", "pwritev", "pwritev2", "copy_file_range", "sendfile")
MOVING = ("lseek", "read", "readv", "close")
"""Calls that move or end the place in a file at which ``write`` goes on."""
FLUSHING = ("fsync", "fdatasync", "syncfs", "sync", "msync")
"""Calls after which what was written is on the disk."""
CHANGING = (
    *("ftruncate", "truncate", "fallocate", "chmod", "fchmod", "fchmodat"),
    *("rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat"),
    *("unlink", "unlinkat", "rmdir"),
)

_LINE = re.compile(r"(?P<thread>\d+) +(?:\d+\.\d+ )?(?P<name>\w+)\((?P<rest>.*)")
_FOR_WRITING = re.compile(r"O_(WRONLY|RDWR|CREAT|TRUNC)\b")
_FAILED = re.compile(r" = -1 E[A-Z]+ \(")


@dataclass(frozen=True, slots=True)
class Call:
    """One system call that changes something below the output folder.

    Attributes:
        name: of the system call.
        number: how many calls of that name its thread had made, this one included.
        text: as strace shows it, without the bytes that are written.
        creates: whether it needs space or permission that may be missing.
    """

    name: str
    number: int
    text: str
    creates: bool


def is_available() -> bool:
    """Whether ``strace`` is installed."""
    return shutil.which("strace") is not None


def options(
    log: Path,
    call: Call | None = None,
    effect: str = "",
    *,
    more: Sequence[str] = (),
    timed: bool = False,
) -> list[str]:
    """The command that attaches to a process, to be followed by its id.

    Args:
        log: file that the trace is written to.
        call: the call at which ``effect`` happens; None for a trace alone.
        effect: such as ``signal=KILL`` or ``error=ENOSPC``.
        more: names of calls to trace besides those that change files.
        timed: whether each line has its time, in seconds of one clock for all traces.
    """
    # A question mark: not every processor has every call.
    traced = ",".join(f"?{name}" for name in (*OPENING, *MAKING, *WRITING, *CHANGING, *more))
    command = ["strace", "-f", "-y", "-qq", "-s", "0", "-o", str(log), "-e", f"trace={traced}"]
    if timed:
        command.append("-ttt")
    if call is not None:
        command += ["-e", f"inject={call.name}:{effect}:when={call.number}"]
    return [*command, "-p"]


def read_calls(log: Path, folder: Path) -> list[Call]:
    """The calls of a trace that change something in ``folder``, in their order."""
    counts: Counter[tuple[str, str]] = Counter()
    calls = []
    for line in log.read_text(errors="replace").splitlines():
        match = _LINE.match(line)
        if match is None:  # the second half of an interrupted line, or a signal
            continue
        name, rest = match["name"], match["rest"]
        counts[match["thread"], name] += 1
        if name in FLUSHING:
            continue
        opens = name in OPENING and _FOR_WRITING.search(rest) is not None
        changes = (opens or name not in OPENING) and not _FAILED.search(rest)
        if changes and _concerns(rest, folder):
            creates = name in WRITING or name in MAKING or (opens and "O_CREAT" in rest)
            text = f"{name}({rest}".replace(f"{folder}/", "")
            calls.append(Call(name, counts[match["thread"], name], text, creates))
    return calls


def spread(items: Sequence[T], count: int) -> list[T]:
    """``count`` of the items, the first and the last among them, at even distances."""
    if len(items) <= count:
        return list(items)
    if count < 2:
        return list(items[:count])
    return [items[index * (len(items) - 1) // (count - 1)] for index in range(count)]


def is_traced(pid: int) -> bool:
    """Whether every thread of a process has a tracer."""
    statuses = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status")]
    return all("TracerPid:\t0\n" not in status for status in statuses)


def was_injected(log: Path, folder: Path) -> bool:
    """Whether the trace shows a call that was made to fail, and that concerns ``folder``."""
    lines = log.read_text(errors="replace").splitlines()
    return any("(INJECTED)" in line and _concerns(line, folder) for line in lines)


def _concerns(rest: str, folder: Path) -> bool:
    return f"{folder}/" in rest or f'"{folder}"' in rest
