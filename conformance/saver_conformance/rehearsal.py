"""A save in a forked copy of the rank, traced and disturbed, which costs the rank nothing."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ATTACH_LIMIT = 10.0
"""Seconds for strace to attach."""

_POLL = 0.005


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """How a rehearsed save ended.

    Attributes:
        status: as of a rank; ``untraced``: strace did not attach.
        detail: traceback, signal or what strace said.
    """

    status: Literal["returned", "raised", "died", "hung", "untraced"]
    detail: str = ""


def rehearse(
    save: Callable[[], object], strace: Sequence[str], said: Path, limit: float
) -> Rehearsed:
    """Fork, attach ``strace`` if a command is given, save in the child, and say how it ended.

    Args:
        save: calls the saver.
        strace: the command, to be followed by a process id; empty for none.
        said: file for tracebacks of the child and complaints of strace.
        limit: seconds after which the save counts as hanging.
    """
    waiting, go = os.pipe()
    child = os.fork()
    if child == 0:
        _save_in_child(save, waiting, go, said)
    os.close(waiting)
    tracer = None
    try:
        if strace:
            with said.open("w") as complaints:
                tracer = subprocess.Popen([*strace, str(child)], stderr=complaints)
            if not _is_attached(child, tracer):
                return Rehearsed("untraced", said.read_text(errors="replace"))
        os.write(go, b"!")
        return _wait(child, said, limit)
    finally:
        os.close(go)
        _end(child)
        if tracer is not None:
            tracer.wait()


def _save_in_child(save: Callable[[], object], waiting: int, go: int, said: Path) -> None:
    code = 1
    try:
        os.close(go)
        allow_any_tracer = 0x59616D61  # PR_SET_PTRACER of linux/prctl.h
        ctypes.CDLL(None).prctl(allow_any_tracer, ctypes.c_ulong(-1), 0, 0, 0)
        if os.read(waiting, 1):
            save()
            code = 0
    except BaseException:
        said.write_text(traceback.format_exc())
    finally:
        os._exit(code)


def _is_attached(child: int, tracer: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + ATTACH_LIMIT
    while time.monotonic() < deadline and tracer.poll() is None:
        status = Path(f"/proc/{child}/status").read_text()
        if "TracerPid:\t0\n" not in status:
            return True
        time.sleep(_POLL)
    return False


def _wait(child: int, said: Path, limit: float) -> Rehearsed:
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            time.sleep(_POLL)
            continue
        if ended.si_code == os.CLD_EXITED and ended.si_status in (0, 1):
            text = said.read_text(errors="replace") if ended.si_status else ""
            return Rehearsed("raised" if ended.si_status else "returned", text)
        if ended.si_code == os.CLD_EXITED:
            return Rehearsed("died", f"exit code {ended.si_status}")
        return Rehearsed("died", f"killed by {signal.Signals(ended.si_status).name}")
    return Rehearsed("hung", f"did not return within {limit:g} s")


def _end(child: int) -> None:
    os.kill(child, signal.SIGKILL)  # a zombie does not mind
    os.waitpid(child, 0)
