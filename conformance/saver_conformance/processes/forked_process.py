"""Ranks and reloads as the suite sees them: forked by a server, with a process id and an end."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any, Self

from saver_conformance.errors import HarnessFailedError
from saver_conformance.processes import interrupts
from saver_conformance.processes.protocol import ServerStart


class ForkedProcess:
    """A process that was requested; the server tells its process id and its end on a pipe."""

    def __init__(self, server: ForkServer, number: int, status: int) -> None:
        """Follow process ``number`` of ``server`` on the pipe ``status``, which is closed here."""
        self._server = server
        self._number = number
        self._told = b""
        self._closed = False
        os.set_blocking(status, False)  # two threads may listen, and one hears it
        self.status = status
        """Descriptor that can be read when something is told."""

    @property
    def pid(self) -> int:
        """Its process id, once it is forked; 0 where the server ended before."""
        while self._find("pid") is None and not self._closed:
            self._read()
        return self._find("pid") or 0

    @property
    def code(self) -> int | None:
        """The exit code, or minus the signal; None as far as it is known to run.

        Its server's end is its end, too.
        """
        return -signal.SIGKILL if (ended := self._find("exit")) is None and self._closed else ended

    def hear(self) -> None:
        """Take what is told by now; never waits."""
        while not self._closed and self._read(0):
            pass

    def wait(self) -> int:
        """Wait for its end.

        Returns:
            As ``code``.
        """
        while (code := self.code) is None:
            self._read()
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it is there: the number 0 would stand for our own group."""
        self.hear()
        if (pid := self._find("pid")) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """Kill it with all that it started.

        One that is not forked yet ends by itself: nobody is there to ask it anything.
        """
        self.hear()
        if (pid := self._find("pid")) is not None:
            # It leads its own session: the group is the process and what a saver forked there.
            # Alone, too, for one that was forked just now and leads none yet.
            for kill in (os.killpg, os.kill):
                with contextlib.suppress(ProcessLookupError):
                    kill(pid, signal.SIGKILL)

    def end(self) -> None:
        """Wait for its end, once it was killed, and give back what was kept for it."""
        if self._find("pid") is not None:
            self.wait()
        self._server.release(self._number)
        os.close(self.status)

    def _read(self, milliseconds: int | None = None) -> bool:
        """Take what is told next; False if that is nothing within the time."""
        watched = select.poll()
        watched.register(self.status, select.POLLIN)
        try:
            if not watched.poll(milliseconds):
                return False
            chunk = os.read(self.status, 1 << 12)
        except BlockingIOError:
            return False
        self._told += chunk
        self._closed = not chunk
        return True

    def _find(self, word: str) -> int | None:
        for line in self._told.decode().splitlines(keepends=True):
            name, _, value = line.partition(" ")
            if name == word and line.endswith("\n"):
                return int(value)
        return None


class ForkServer:
    """The program that processes are forked from, see ``fork_server.py``; thread-safe.

    It is started again for the next process where something has killed it. The kernel ends it, and
    with it its processes, with the thread that started it.
    """

    def __init__(self, imports: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start it; it imports the modules ``imports`` before it forks the first process."""
        self._imports = tuple(imports)
        self._environment = dict(environment)
        self._numbers = count()
        self._lock = threading.Lock()
        self._stopped = False
        self._launch()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def runs(self) -> bool:
        """Whether it is there to fork processes."""
        return self._popen.poll() is None

    def start(
        self,
        function: str,
        pipes: Sequence[int],
        arguments: Mapping[str, Any],
        environment: Mapping[str, str],
        output: int,
    ) -> ForkedProcess:
        """Have a process forked, without waiting for it.

        Args:
            function: what it calls, as ``module:name``; its end is that of the process.
            pipes: descriptors that the function gets, by position.
            arguments: what the function gets by name; JSON can hold it.
            environment: all variables that it has.
            output: descriptor to which it prints.

        Raises:
            HarnessFailedError: the server was stopped.
        """
        task = {"function": function, "arguments": arguments, "environment": dict(environment)}
        file, (status, told) = os.memfd_create("task"), os.pipe()
        try:
            os.write(file, json.dumps(task).encode())
            os.lseek(file, 0, os.SEEK_SET)
            number = next(self._numbers)
            with self._lock:
                self._make_sure_it_runs()
                self._send("fork", number, file, *pipes, output, told)
        except BaseException:
            os.close(status)
            raise
        finally:
            os.close(told)
            os.close(file)
        return ForkedProcess(self, number, status)

    def release(self, number: int) -> None:
        """Say that nobody needs the process id of a process any more."""
        with self._lock, contextlib.suppress(OSError):  # it has ended
            self._send("release", number)

    def stop(self) -> None:
        """End it, and with it its processes; it forks no more."""
        with self._lock:
            self._stopped = True
            self._end()

    def _make_sure_it_runs(self) -> None:
        if self._stopped:
            raise HarnessFailedError("the run is over")
        if not self.runs:
            self._end()
            self._launch()

    def _send(self, do: str, number: int, *descriptors: int) -> None:
        message = json.dumps({"do": do, "number": number}).encode()
        socket.send_fds(self._socket, [message], descriptors)

    def _launch(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        start = ServerStart(socket=theirs.fileno(), parent=os.getpid(), imports=self._imports)
        with interrupts.held(), theirs:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "saver_conformance.processes.fork_server", start.to_json()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=self._environment,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )

    def _end(self) -> None:
        self._socket.close()
        self._popen.kill()
        self._popen.wait()
