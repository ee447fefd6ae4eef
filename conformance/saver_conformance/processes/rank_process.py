"""Ranks as the suite sees them: forked by a server, with a process id, a pipe and an end."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import count
from typing import Self

from saver_conformance.processes.protocol import RankSettings, ServerStart


class RankProcess:
    """A rank that was requested; the server tells its process id and its end on a pipe."""

    def __init__(self, server: RankServer, number: int, status: int) -> None:
        """Follow the rank ``number`` of ``server`` on the pipe ``status``, which is closed here."""
        self._server = server
        self._number = number
        self._told = b""
        self._closed = False
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

        Its server's end is the end of a rank.
        """
        return -signal.SIGKILL if (ended := self._find("exit")) is None and self._closed else ended

    def hear(self) -> None:
        """Take what is told by now; never waits."""
        watched = select.poll()
        watched.register(self.status, select.POLLIN)
        while not self._closed and watched.poll(0):
            self._read()

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
            # A rank leads its own session: the group is the rank and what a saver forked. Alone,
            # too, for one that was forked just now and leads none yet.
            for kill in (os.killpg, os.kill):
                with contextlib.suppress(ProcessLookupError):
                    kill(pid, signal.SIGKILL)

    def end(self) -> None:
        """Wait for its end, once it was killed, and give back what was kept for it."""
        if self._find("pid") is not None:
            self.wait()
        self._server.release(self._number)
        os.close(self.status)

    def _read(self) -> None:
        chunk = os.read(self.status, 1 << 12)
        self._told += chunk
        self._closed = not chunk

    def _find(self, word: str) -> int | None:
        for line in self._told.decode().splitlines(keepends=True):
            name, _, value = line.partition(" ")
            if name == word and line.endswith("\n"):
                return int(value)
        return None


class RankServer:
    """The program that ranks are forked from, see ``rank_server.py``.

    Start it in a thread that outlives it: the kernel ends it, and with it the ranks, with the
    thread that started it.
    """

    def __init__(self, imports: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start it; it imports the modules ``imports`` before it forks the first rank."""
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._numbers = count()
        start = ServerStart(socket=theirs.fileno(), parent=os.getpid(), imports=tuple(imports))
        with theirs:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "saver_conformance.processes.rank_server", start.to_json()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=dict(environment),
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def runs(self) -> bool:
        """Whether it is there to fork ranks."""
        return self._popen.poll() is None

    def start(
        self,
        settings: RankSettings,
        environment: Mapping[str, str],
        *,
        requests: int,
        answers: int,
        output: int,
    ) -> RankProcess:
        """Have a rank forked, without waiting for it.

        Args:
            settings: how it is set up.
            environment: all variables that it has.
            requests: descriptor from which it reads requests.
            answers: descriptor to which it writes answers.
            output: descriptor to which it prints.
        """
        number = next(self._numbers)
        status, told = os.pipe()
        message = {
            "number": number,
            "settings": asdict(settings),
            "environment": dict(environment),
        }
        try:
            descriptors = [requests, answers, output, told]
            socket.send_fds(self._socket, [json.dumps(message).encode()], descriptors)
        except BaseException:
            os.close(status)
            raise
        finally:
            os.close(told)
        return RankProcess(self, number, status)

    def release(self, number: int) -> None:
        """Say that nobody needs the process id of a rank any more."""
        with contextlib.suppress(OSError):  # it has ended
            self._socket.send(json.dumps({"number": number}).encode())

    def stop(self) -> None:
        """End it, and with it all ranks."""
        self._socket.close()
        self._popen.kill()
        self._popen.wait()
