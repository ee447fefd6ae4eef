"""The program that ranks and reloads are forked from, once it has imported what they need.

Imports take seconds a process, a fork takes milliseconds, and a process that was forked has no past
but the imports. The suite's side is ``forked_process.py``.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from saver_conformance.processes.protocol import ServerStart, die_with_parent

LONGEST_REQUEST = 1 << 10
"""Bytes of a request; what a process is to do lies in a file of its own, and may be long."""
DESCRIPTORS = 16
"""What comes with a request at most: that file, the pipes of the process, where it prints, and
where its end is told."""


@dataclass(slots=True)
class _Child:
    """A process that was forked.

    Attributes:
        pid: its process id, which stays its own until it is reaped.
        status: pipe on which the suite learns its process id and its end; -1 once that is told.
        released: whether nobody needs the process id any more.
    """

    pid: int
    status: int
    released: bool = False

    def tell(self, text: str) -> None:
        with suppress(BrokenPipeError):
            os.write(self.status, text.encode())

    def end(self, code: int) -> None:
        self.tell(f"exit {code}\n")
        os.close(self.status)
        self.status = -1


class _Server:
    """Forks a process for each request until the suite is gone."""

    def __init__(self, requests: socket.socket) -> None:
        self._requests = requests
        self._children: dict[int, _Child] = {}
        self._ended, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._wake)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def run(self) -> None:
        watched = select.poll()
        watched.register(self._requests, select.POLLIN)
        watched.register(self._ended, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _ in watched.poll()}
            if self._ended in ready:
                os.read(self._ended, 1 << 16)
            if self._requests.fileno() in ready:
                data, descriptors, *_ = socket.recv_fds(
                    self._requests, LONGEST_REQUEST, DESCRIPTORS
                )
                if not data:
                    return
                self._serve(json.loads(data), descriptors)
            self._look_for_ends()

    def _serve(self, request: dict[str, Any], descriptors: list[int]) -> None:
        number = request["number"]
        if request["do"] == "release":
            if child := self._children.get(number):  # else it was a server's before this one
                child.released = True
            return
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        file, *pipes, output, status = descriptors
        server = os.getpid()
        try:
            pid = os.fork()
        except OSError:  # no room for one more: those that are there need not end for it
            os.write(status, b"exit 1\n")
            for descriptor in descriptors:
                os.close(descriptor)
            return
        if not pid:
            os.close(status)
            with _no_return():
                die_with_parent(server)
                with os.fdopen(file, "rb") as lines:
                    task = json.load(lines)
                self._leave(task["environment"], output)
                module, _, name = task["function"].partition(":")
                getattr(importlib.import_module(module), name)(*pipes, **task["arguments"])
        for descriptor in (file, *pipes, output):
            os.close(descriptor)
        child = self._children[number] = _Child(pid, status)
        child.tell(f"pid {pid}\n")

    def _leave(self, environment: dict[str, str], output: int) -> None:
        """Give up what is the server's, in a process that was just forked."""
        os.setsid()
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._requests.close()
        told = [child.status for child in self._children.values() if child.status >= 0]
        for descriptor in (self._ended, self._wake, *told):
            os.close(descriptor)
        self._children.clear()
        os.environ.clear()
        os.environ.update(environment)
        tempfile.tempdir = None  # it is that of the environment again

    def _look_for_ends(self) -> None:
        """Tell of processes that have ended; who is released is reaped: its number is free then."""
        for number, child in tuple(self._children.items()):
            if child.status >= 0:
                options = os.WEXITED | os.WNOHANG | os.WNOWAIT
                if (ended := os.waitid(os.P_PID, child.pid, options)) is None:
                    continue
                killed = ended.si_code != os.CLD_EXITED
                child.end(-ended.si_status if killed else ended.si_status)
            if child.released:
                os.waitpid(child.pid, 0)
                del self._children[number]


@contextmanager
def _no_return() -> Iterator[None]:
    """End the process in any case: a fork has nothing to do with what its parent was about."""
    code = 1
    try:
        yield
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Import what processes need, and fork them until the suite closes the socket."""
    start = ServerStart.from_json(sys.argv[1])
    die_with_parent(start.parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the suite's
    for module in start.imports:
        with suppress(Exception):  # a process imports it again, and says what is wrong
            importlib.import_module(module)
    gc.collect()
    gc.freeze()  # else a collection in a process would copy all of the memory that is shared
    with socket.socket(fileno=start.socket) as requests:
        _Server(requests).run()


if __name__ == "__main__":
    main()
