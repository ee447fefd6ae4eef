"""A save in forked copies of the ranks, traced or with a fault; the ranks stay as they are."""

from __future__ import annotations

import ctypes
import multiprocessing.synchronize
import multiprocessing.util
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from saver_conformance.processes.strace import is_traced
from saver_conformance.processes.time_limit import TimeLimit
from saver_conformance.processes.traceback_text import describe_exception

ATTACH_LIMIT = 30.0
"""Seconds for strace to attach."""

_POLL = 0.005


@dataclass(frozen=True, slots=True)
class ForkedResult:
    """How a forked save ended on one rank.

    Attributes:
        status: as of a rank; ``unready``: the copies did not find each other, or strace did not
            attach, so that the saver was not called.
        detail: traceback, signal or what strace said.
    """

    status: Literal["returned", "raised", "died", "hung", "unready"]
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ForkedSave:
    """One forked save, seen from one rank.

    Attributes:
        strace: the command, to be followed by a process id; empty for none.
        meeting: a folder for the ranks of this save only.
        rank: number of this rank.
        limit: seconds after which the save counts as hanging.
        grace: seconds that it gets once it has failed on another rank.
        ranks: how many ranks save.
    """

    strace: Sequence[str]
    meeting: Path
    rank: int
    limit: float
    grace: float
    ranks: int = 1

    @property
    def said(self) -> Path:
        """File for the traceback of the copy and the complaints of strace."""
        return self.meeting / f"said-{self.rank}"

    def fail(self) -> None:
        """Let the other ranks know that this one has failed."""
        (self.meeting / f"failed-{self.rank}").touch()

    def end(self) -> None:
        """Let the other ranks know that the save has ended here."""
        (self.meeting / f"ended-{self.rank}").touch()

    def has_ended_everywhere(self) -> bool:
        """Whether no rank saves any more."""
        return len(list(self.meeting.glob("ended-*"))) >= self.ranks

    def has_failed_elsewhere(self) -> bool:
        """Whether another rank has failed."""
        return any(self.meeting.glob("failed-*"))


def save_in_fork(
    save: Callable[[], object], forked: ForkedSave, connect: Callable[[], object] = lambda: None
) -> ForkedResult:
    """Fork, trace the copy if that is requested, save in it, and say how it ended.

    Args:
        save: calls the saver.
        forked: how it is watched.
        connect: called in the copy before it is traced; brings it together with the others.
    """
    waiting, go = os.pipe()
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(go)
        os.close(told)
        _save_in_child(save, connect, waiting, tell, forked.said)
    os.close(waiting)
    os.close(tell)
    tracer = None
    try:
        if not os.read(told, 1):
            return _unready(forked)
        if forked.strace:
            with forked.said.open("w") as complaints:
                tracer = subprocess.Popen([*forked.strace, str(child)], stderr=complaints)
            if not _is_attached(child, tracer):
                return _unready(forked)
        os.write(go, b"!")
        how = _wait(child, forked, told)
        forked.end()
        if how.status == "returned":
            _keep_alive(forked)
        return how
    finally:
        os.close(go)
        os.close(told)
        _end(child)
        if tracer is not None:
            tracer.wait()


def _save_in_child(
    save: Callable[[], object], connect: Callable[[], object], waiting: int, tell: int, said: Path
) -> None:
    code = 1
    try:
        allow_any_tracer = 0x59616D61  # PR_SET_PTRACER of linux/prctl.h
        ctypes.CDLL(None).prctl(allow_any_tracer, ctypes.c_ulong(-1), 0, 0, 0)
        _own_locks()
        connect()
        os.write(tell, b"!")
        if os.read(waiting, 1):
            save()
            os.write(tell, b"!")
            os.read(waiting, 1)  # until all ranks have ended: see _keep_alive
            code = 0
    except BaseException as error:
        said.write_text(describe_exception(error), errors="backslashreplace")
    finally:
        os._exit(code)


def _own_locks() -> None:
    """Replace locks of ``multiprocessing``, which this copy shares with the rank and its copies.

    A copy that is killed while it holds one, as tqdm's, would leave all later ones waiting.
    """
    context = multiprocessing.get_context("fork")
    for lock in list(vars(multiprocessing.util)["_afterfork_registry"].values()):
        if isinstance(lock, multiprocessing.synchronize.Lock):
            multiprocessing.synchronize.Lock.__init__(lock, ctx=context)
        elif isinstance(lock, multiprocessing.synchronize.RLock):
            multiprocessing.synchronize.RLock.__init__(lock, ctx=context)


def _unready(forked: ForkedSave) -> ForkedResult:
    forked.fail()
    forked.end()
    return ForkedResult("unready", forked.said.read_text(errors="replace"))


def _is_attached(child: int, tracer: subprocess.Popen[bytes]) -> bool:
    time_limit = TimeLimit(ATTACH_LIMIT)
    while time_limit.left() > 0 and tracer.poll() is None:
        if is_traced(child):
            return True
        time.sleep(_POLL)
    return False


def _keep_alive(forked: ForkedSave) -> None:
    """Wait until the save has ended on all ranks.

    In a training, a rank that returns from a save lives on: its threads still send what others wait
    for.
    """
    time_limit = TimeLimit(forked.limit)
    while time_limit.left() > 0 and not forked.has_ended_everywhere():
        time.sleep(_POLL)


def _wait(child: int, forked: ForkedSave, told: int) -> ForkedResult:
    time_limit, why = TimeLimit(forked.limit), f"within {forked.limit:g} s"
    alone, poller = True, select.poll()  # select() takes no descriptor above 1023
    poller.register(told, select.POLLIN)
    while time_limit.left() > 0:
        if poller.poll(0) and os.read(told, 1):
            return ForkedResult("returned")
        ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is not None:
            how = _describe(ended.si_code, ended.si_status, forked.said)
            if how.status != "returned":
                forked.fail()
            return how
        if alone and forked.has_failed_elsewhere():
            alone = False
            if time_limit.shorten(forked.grace):
                why = f"within {forked.grace:g} s after another rank failed"
        time.sleep(_POLL)
    forked.fail()
    return ForkedResult("hung", f"did not return {why}")


def _describe(code: int, status: int, said: Path) -> ForkedResult:
    if code == os.CLD_EXITED and status in (0, 1):
        text = said.read_text(errors="replace") if status else ""
        return ForkedResult("raised" if status else "returned", text)
    if code == os.CLD_EXITED:
        return ForkedResult("died", f"exit code {status}")
    return ForkedResult("died", f"killed by {signal.Signals(status).name}")


def _end(child: int) -> None:
    os.kill(child, signal.SIGKILL)  # a zombie does not mind
    os.waitpid(child, 0)
