"""Reloads saved folders, each in a fresh process with a time limit.

The processes are forked from a server that has imported the framework once, so a reload costs
what loading costs, and still starts from memory that no training has touched.
"""

from __future__ import annotations

import gc
import importlib
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from saver_conformance.cases.case import Case
from saver_conformance.errors import HarnessFailedError
from saver_conformance.observation.observation import Reload
from saver_conformance.processes.forked_process import ForkedProcess, ForkServer
from saver_conformance.processes.time_limit import PERIOD, TimeLimit

RELOAD_LIMIT = 120.0
"""Seconds after which a reload that has not ended counts as failed."""
LOG_TAIL = 2000
"""Characters of a reload's output that go with its failure."""


class Reloader:
    """Starts a process for every reload; may be used from several threads."""

    def __init__(self, module: str, server: ForkServer, environment: Mapping[str, str]) -> None:
        """Reload with ``module``, which has ``reload`` and ``identify``; nothing is started yet.

        Args:
            module: what does the work.
            server: what the processes are forked from; whoever made it stops it.
            environment: all variables that they have.
        """
        self._module = module
        self._server = server
        self._environment = environment
        self._lock = threading.Lock()
        self._running: set[ForkedProcess] = set()

    def reload(self, case: Case, folder: Path) -> Reload:
        """Reload what was saved for ``case`` in ``folder``, within ``RELOAD_LIMIT``.

        Raises:
            HarnessFailedError: the process did not come up.
        """
        result = self._call("reload", case, folder)
        return result if isinstance(result, Reload) else Reload(error=str(result))

    def identify(self, case: Case, folder: Path) -> dict[str, str | None]:
        """What loads from each of the folders in ``folder / "states"``, by name.

        Raises:
            HarnessFailedError: the process did not come up, or did not come to the end.
        """
        result = self._call("identify", case, folder)
        if not isinstance(result, dict):
            raise HarnessFailedError(f"folders of saves with faults could not be loaded: {result}")
        return result

    def save_plainly(self, case: Case, folder: Path) -> None:
        """Write a plain save of what ``case`` trained into ``folder``.

        Raises:
            HarnessFailedError: the process did not come up, or did not come to the end.
        """
        result = self._call("save_plainly", case, folder)
        if result is not True:
            raise HarnessFailedError(f"no plain save could be made: {result}")

    def stop(self) -> None:
        """Kill what still runs; who waits for it is told that it ended."""
        with self._lock:
            for process in self._running:
                process.kill()

    def _call(self, function: str, case: Case, folder: Path) -> Any:
        log = folder / "reload.log"
        answer_end, answers = (Connection(end) for end in os.pipe())
        with answer_end:
            with answers, log.open("wb") as output:
                process = self._server.start(
                    f"{__name__}:call",
                    [answers.fileno()],
                    {
                        "module": self._module,
                        "function": function,
                        "case": case.to_json(),
                        "folder": str(folder),
                    },
                    self._environment,
                    output.fileno(),
                )
            with self._lock:
                self._running.add(process)
            try:
                return _receive(process, answer_end, log, RELOAD_LIMIT)
            finally:
                process.kill()
                process.end()
                with self._lock:
                    self._running.discard(process)


def _receive(process: ForkedProcess, answer_end: Connection, log: Path, limit: float) -> Any:
    """The process's result, or a text that says why there is none.

    The first message only says that it is up.
    """
    started, time_limit = False, TimeLimit(limit)
    try:
        while time_limit.left() > 0:
            if not answer_end.poll(PERIOD):
                continue
            message = answer_end.recv()
            if started:
                return message
            started, time_limit = True, TimeLimit(limit)
    except EOFError:
        end = f"the process that reloaded ended with exit code {process.wait()}"
    else:
        end = f"the reload did not end within {limit:g} s"
    said = log.read_text(errors="replace")[-LOG_TAIL:].strip() if log.exists() else ""
    if not started:
        raise HarnessFailedError(f"{end}, before it began\n{said}")
    return f"{end}\n{said}".strip()


def call(answers: int, module: str, function: str, case: str, folder: str) -> None:
    """Do it, in a process that was forked for it, and send the result to ``answers``."""
    gc.disable()  # the process ends before there is anything to collect
    with Connection(answers) as connection:
        reloading = importlib.import_module(module)
        connection.send("started")
        result = getattr(reloading, function)(Case.from_json(case), Path(folder))
        with suppress(BrokenPipeError):  # nobody waits any more
            connection.send(result)
