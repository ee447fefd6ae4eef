"""Processes whose file-system calls stop at the kernel's door until the test lets them in.

A forked child puts itself under a seccomp filter that announces each file-system call to the
parent (``seccomp_unotify(2)``). The parent counts those that concern one folder, whatever thread
and library makes them, and lets each pass, answers it with an error, or kills the child before it
happens.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import re
import select
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from canonical_saver import SaveError

Watch = Callable[[], None]
"""Called by a child when what follows is to be watched."""

_MACHINES = {"x86_64": (0, 0xC000003E, 317), "aarch64": (1, 0xC00000B7, 277)}
"""Column in the table below, AUDIT_ARCH, and the number of ``seccomp``."""

# Name, numbers on x86_64 and aarch64, and where a call has its files: f0 is a descriptor in
# argument 0, p1 a path in argument 1, f0p1 a path in argument 1 relative to that descriptor.
_TABLE = """
open 2 - p0             creat 85 - p0           openat 257 56 f0p1      openat2 437 437 f0p1
stat 4 - p0             lstat 6 - p0            newfstatat 262 79 f0p1  statx 332 291 f0p1
access 21 - p0          faccessat 269 48 f0p1   faccessat2 439 439 f0p1 fstat 5 80 f0
readlink 89 - p0        readlinkat 267 78 f0p1  getdents64 217 61 f0    close 3 57 f0
mkdir 83 - p0           mkdirat 258 34 f0p1     rmdir 84 - p0           unlink 87 - p0
unlinkat 263 35 f0p1    rename 82 - p0,p1       renameat 264 38 f0p1,f2p3
renameat2 316 276 f0p1,f2p3                     link 86 - p0,p1         linkat 265 37 f0p1,f2p3
symlink 88 - p1         symlinkat 266 36 f1p2   chmod 90 - p0           fchmod 91 52 f0
fchmodat 268 53 f0p1    utimensat 280 88 f0p1   truncate 76 45 p0       ftruncate 77 46 f0
fallocate 285 47 f0     fsync 74 82 f0          fdatasync 75 83 f0      read 0 63 f0
readv 19 65 f0          pread64 17 67 f0        preadv 295 69 f0        write 1 64 f0
writev 20 66 f0         pwrite64 18 68 f0       pwritev 296 70 f0       sendfile 40 71 f0,f1
copy_file_range 326 285 f0,f2                   preadv2 327 286 f0      pwritev2 328 287 f0
"""
_READING = frozenset(
    (
        *("stat", "lstat", "newfstatat", "statx", "fstat", "access", "faccessat", "faccessat2"),
        *("readlink", "readlinkat", "getdents64", "close", "read", "readv", "pread64"),
        *("preadv", "preadv2"),
    )
)
_OPENING = {"open": 1, "openat": 2}
"""Number of the argument with the flags."""

_NOTIFICATION = struct.Struct("=QIIiIQ6Q")  # struct seccomp_notif
_ANSWER = struct.Struct("=QqiI")  # struct seccomp_notif_resp
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_CONTINUE = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Call:
    """One file-system call that concerns the watched folder.

    Attributes:
        name: of the system call.
        path: of its last file, relative to the folder, ``.`` for the folder itself.
        changes: whether it can change anything on the disk.
    """

    name: str
    path: str
    changes: bool

    def __str__(self) -> str:
        return f"{self.name} {self.path}"


@dataclass(frozen=True)
class Fault:
    """What happens instead of one call.

    Attributes:
        rank: in which of the processes.
        number: of the call among those of its process that concern the folder, from 0.
        effect: ``KILL``, ``STOP``, the name of an error such as ``ENOSPC``, or what is to be done
            before the call is let in.
    """

    rank: int
    number: int
    effect: str | Callable[[], None]


@dataclass
class Ended:
    """How a process ended.

    Attributes:
        status: ``refused``: with an error of the saver; ``raised``: with any other.
        detail: the error, or what was printed.
        calls: what it did to the folder, the call with the fault included.
        seconds: from the fault, in whichever process, to the end.
    """

    status: Literal["returned", "refused", "raised", "killed", "stopped", "hung"] = "hung"
    detail: str = ""
    calls: list[Call] = field(default_factory=list)
    seconds: float = 0.0


def why_unavailable() -> str:
    """Why calls cannot be watched here; empty if they can."""
    if platform.machine() not in _MACHINES:
        return f"no table of system calls for {platform.machine()}"
    child = os.fork()
    if child == 0:
        try:
            _announce_calls()
            _LIBC._exit(0)
        except OSError as error:
            _LIBC._exit(error.errno or 1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return f"seccomp(2) with a listener is not allowed: {os.strerror(code)}" if code else ""


def run(
    bodies: Sequence[Callable[[Watch], Any]],
    folder: Path,
    scratch: Path,
    fault: Fault | None = None,
    limit: float = 60.0,
) -> list[Ended]:
    """Run each body in a fork, watch its calls on a folder, and inject a fault into one of them.

    Args:
        bodies: one a process; each calls what it is given when the watch is to begin.
        folder: the watched folder; need not exist.
        scratch: folder for what the processes print.
        fault: what to do to one of the calls.
        limit: seconds after which whoever still runs is said to hang.
    """
    children = [_Child(number, body, folder, scratch) for number, body in enumerate(bodies)]
    deadline = time.monotonic() + limit
    faulted_at = deadline
    poll = select.poll()
    by_handle: dict[int, _Child] = {}
    for child in children:
        for handle in (child.ended, child.socket.fileno()):
            poll.register(handle, select.POLLIN)
            by_handle[handle] = child
    while (remaining := deadline - time.monotonic()) > 0:
        if all(child.is_over for child in children):
            break
        for handle, event in poll.poll(remaining * 1000):
            child = by_handle[handle]
            if handle == child.ended:
                poll.unregister(handle)
                child.conclude(time.monotonic() - faulted_at)
            elif handle == child.socket.fileno():
                poll.unregister(handle)
                listener = child.receive_listener()
                if listener is not None:
                    by_handle[listener] = child
                    poll.register(listener, select.POLLIN)
            elif event & select.POLLIN:
                if child.answer(fault):
                    faulted_at = time.monotonic()
            else:
                poll.unregister(handle)
    for child in children:
        child.close()
    return [child.found for child in children]


class _Child:
    def __init__(
        self, number: int, body: Callable[[Watch], Any], folder: Path, scratch: Path
    ) -> None:
        self.number, self.found = number, Ended()
        self._folder, self._said = os.path.realpath(folder), scratch / f"said-{number}.txt"
        self._listener: int | None = None
        self._running = True
        self.socket, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            self.socket.close()
            _live(body, theirs, self._said)
        theirs.close()
        self.ended = os.pidfd_open(self.pid)

    @property
    def is_over(self) -> bool:
        return not self._running or self.found.status == "stopped"

    def receive_listener(self) -> int | None:
        _, handles, _, _ = socket.recv_fds(self.socket, 1, 1)
        self._listener = handles[0] if handles else None
        return self._listener

    def answer(self, fault: Fault | None) -> bool:
        """Let the announced call happen, or not; returns whether it got the fault."""
        assert self._listener is not None
        announced = bytearray(_NOTIFICATION.size)
        try:
            fcntl.ioctl(self._listener, _RECEIVE, announced)
            unique, thread, _, number, _, _, *arguments = _NOTIFICATION.unpack(announced)
            call = self._recognise(number, arguments, thread)
        except OSError:  # it is dead already
            return False
        here = False
        if call is not None:
            place = (self.number, len(self.found.calls))
            here = fault is not None and place == (fault.rank, fault.number)
            self.found.calls.append(call)
        answer = _ANSWER.pack(unique, 0, 0, _CONTINUE)
        if here:
            assert fault is not None
            effect = fault.effect
            if callable(effect):
                effect()
            elif effect == "KILL":
                os.kill(self.pid, signal.SIGKILL)
                return True  # the call stays at the door
            elif effect == "STOP":
                os.kill(self.pid, signal.SIGSTOP)
                self.found.status = "stopped"
                return True
            else:
                answer = _ANSWER.pack(unique, 0, -getattr(errno, effect), 0)
        try:
            fcntl.ioctl(self._listener, _SEND, answer)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
        return here

    def conclude(self, seconds: float) -> None:
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self._running = False
        if self.found.status == "stopped":
            return
        self.found.detail = self._said.read_text(errors="replace")
        self.found.seconds = max(seconds, 0.0)
        if code == -signal.SIGKILL:
            self.found.status = "killed"
        elif code in (0, 1):
            self.found.status = "refused" if code else "returned"
        else:
            self.found.status = "raised"

    def close(self) -> None:
        if self._running:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.ended)
        self.socket.close()
        if self._listener is not None:
            os.close(self._listener)

    def _recognise(self, number: int, arguments: list[int], thread: int) -> Call | None:
        name, places = _WATCHED[number]
        paths = [self._path(places, arguments, thread) for places in places]
        inside = [path for path in paths if (path + "/").startswith(self._folder + "/")]
        if not inside:
            return None
        changes = name not in _READING
        if name in _OPENING:
            flags = arguments[_OPENING[name]]
            changes = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))
        return Call(name, os.path.relpath(inside[-1], self._folder), changes)

    def _path(self, place: dict[str, int], arguments: list[int], thread: int) -> str:
        base = f"/proc/{thread}/cwd"
        if "f" in place:
            descriptor = ctypes.c_int(arguments[place["f"]]).value
            if descriptor >= 0:  # AT_FDCWD is not
                base = f"/proc/{thread}/fd/{descriptor}"
        text = _text(thread, arguments[place["p"]]) if "p" in place else ""
        if text.startswith("/"):
            base = "/"
        else:
            try:
                base = str(Path(base).readlink())
            except OSError:
                return ""  # closed already
        folder, _, last = os.path.normpath(f"{base}/{text}").rpartition("/")
        return os.path.realpath(folder or "/") + f"/{last}"


def _text(thread: int, address: int) -> str:
    """Read the string that a call was given."""
    with Path(f"/proc/{thread}/mem").open("rb", buffering=0) as memory:
        memory.seek(address)
        found = b""
        while b"\0" not in found:
            page_end = 4096 - (address + len(found)) % 4096
            found += memory.read(page_end)
    return found.partition(b"\0")[0].decode(errors="surrogateescape")


def _live(body: Callable[[Watch], Any], parent: socket.socket, said: Path) -> None:
    """Be the child: run the body, tell how it went by the exit code, and never return."""
    code = 2
    die_with_parent = 1  # PR_SET_PDEATHSIG
    _LIBC.prctl(die_with_parent, int(signal.SIGKILL), 0, 0, 0)
    try:
        printed = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(printed, 1)
        os.dup2(printed, 2)

        def watch() -> None:
            listener = _announce_calls()
            socket.send_fds(parent, [b"!"], [listener])
            os.close(listener)

        body(watch)
        code = 0
    except SaveError as error:
        os.write(1, f"{type(error).__name__}: {error}".encode())
        code = 1
    except BaseException:
        os.write(1, traceback.format_exc().encode())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        _LIBC._exit(code)  # not Python's, which a measurement of coverage makes write files


def _table() -> dict[int, tuple[str, list[dict[str, int]]]]:
    column = _MACHINES[platform.machine()][0] if platform.machine() in _MACHINES else 0
    table = {}
    for name, *numbers, places in re.findall(r"(\w+) (\S+) (\S+) (\S+)", _TABLE):
        if numbers[column] != "-":
            parsed = [
                {kind: int(digit) for kind, digit in re.findall(r"([fp])(\d)", place)}
                for place in places.split(",")
            ]
            table[int(numbers[column])] = (name, parsed)
    return table


_WATCHED = _table()


def _announce_calls() -> int:
    """Put this thread, and those that it starts, under the filter; returns the listener."""
    _, architecture, seccomp = _MACHINES[platform.machine()]
    load, equal, give = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
    allow, announce = 0x7FFF0000, 0x7FC00000  # SECCOMP_RET_ALLOW, SECCOMP_RET_USER_NOTIF
    numbers = sorted(_WATCHED)
    program = [(load, 0, 0, 4), (equal, 0, len(numbers) + 1, architecture), (load, 0, 0, 0)]
    program += [(equal, len(numbers) - at, 0, number) for at, number in enumerate(numbers)]
    program += [(give, 0, 0, allow), (give, 0, 0, announce)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in program))
    header = struct.pack("@HP", len(program), ctypes.addressof(code))
    no_new_privileges, set_filter, new_listener = 38, 1, 1 << 3
    _LIBC.prctl(no_new_privileges, 1, 0, 0, 0)
    listener = int(_LIBC.syscall(seccomp, set_filter, new_listener, header))
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return listener
