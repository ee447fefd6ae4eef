"""Reloads saved folders, each in a fresh process with a time limit.

The processes are forked from a server that has imported the framework once, so a reload costs
what loading costs, and still starts from memory that no training has touched.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from multiprocessing import forkserver, util
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import ModuleType
from typing import Any

from saver_conformance.cases.case import Case
from saver_conformance.errors import HarnessFailedError
from saver_conformance.observation.observation import Reload
from saver_conformance.processes import interrupts
from saver_conformance.processes.protocol import die_with_parent
from saver_conformance.processes.time_limit import PERIOD, TimeLimit

RELOAD_LIMIT = 120.0
"""Seconds after which a reload that has not ended counts as failed."""
EXIT_LIMIT = 2.0
"""Seconds that a process gets to end by itself once its result is in."""
LOG_TAIL = 2000
"""Characters of a reload's output that go with its failure."""

LONGEST_FOLDER = 108 - len("/pymp-12345678/listener-12345678") - 1
"""Bytes of a temporary folder's path with which the server's socket still has an address
(``sun_path`` of unix(7))."""
_SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")

_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "CUDA_VISIBLE_DEVICES": "",
}


class Reloader:
    """Starts a process for every reload; may be used from several threads."""

    def __init__(self, module: str, scratch: Path | None = None) -> None:
        """Start the server, which imports ``module``; it has ``reload`` and ``identify``.

        Args:
            module: what is imported.
            scratch: where libraries put temporary files; None is the usual place.
        """
        self._module = module
        self._scratch = scratch
        self._context = multiprocessing.get_context("forkserver")
        self._lock = threading.Lock()
        self._running: set[ForkServerProcess] = set()
        self._stopped = False
        self._start_server()

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

    def _call(self, function: str, case: Case, folder: Path) -> Any:
        receiver, sender = self._context.Pipe(duplex=False)
        log = folder / "reload.log"
        process = self._context.Process(
            target=_call_in_child,
            args=(self._module, function, case, folder, log, sender),
            daemon=True,
        )
        with receiver:
            self._start(process)
            sender.close()
            try:
                result = _receive(process, receiver, log, RELOAD_LIMIT)
                if not isinstance(result, str):
                    process.join(EXIT_LIMIT)  # it gives back its semaphores
                return result
            finally:
                process.kill()
                process.join()
                with self._lock:
                    self._running.discard(process)

    def stop(self) -> None:
        """Kill what still runs, and the server; start nothing more."""
        self._stopped = True  # before the lock: who holds it may wait for the server
        _stop_server()
        with self._lock:
            _stop_server()  # again: one may have been started since
            for process in self._running:
                process.kill()

    def _start_server(self) -> None:
        """Start the server, unless it runs: there is one for all, and who ends first stops it."""
        if forkserver._forkserver._forkserver_pid is not None:  # type: ignore[attr-defined]
            return
        self._context.set_forkserver_preload([self._module])
        environment = _server_environment(self._scratch)
        with interrupts.held(), environment, _no_errors_shown(), _short_addresses():
            forkserver.ensure_running()

    def _start(self, process: ForkServerProcess) -> None:
        with self._lock:
            if self._stopped:
                raise HarnessFailedError("the run is over")
            self._start_server()
            with _no_main_module():
                process.start()
            self._running.add(process)


def _stop_server() -> None:
    """End the server; it would do so by itself once this process has ended.

    Not ``ForkServer._stop``: that waits for imports in progress, and raises TypeError where an
    earlier stop was interrupted.
    """
    server: Any = forkserver._forkserver
    with server._lock, interrupts.held():
        pid, alive, address = (
            server._forkserver_pid,
            server._forkserver_alive_fd,
            server._forkserver_address,
        )
        server._forkserver_pid = server._forkserver_alive_fd = server._forkserver_address = None
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        if alive is not None:
            os.close(alive)
        if address is not None and not util.is_abstract_socket_namespace(address):
            Path(address).unlink(missing_ok=True)


def _receive(process: ForkServerProcess, receiver: Connection, log: Path, limit: float) -> Any:
    """The child's result, or a text that says why there is none.

    The first message only says that it is up.
    """
    started, time_limit = False, TimeLimit(limit)
    try:
        while time_limit.left() > 0:
            if not receiver.poll(PERIOD):
                continue
            message = receiver.recv()
            if started:
                return message
            started, time_limit = True, TimeLimit(limit)
    except EOFError:
        process.join()
        end = f"the process that reloaded ended with exit code {process.exitcode}"
    else:
        end = f"the reload did not end within {limit:g} s"
    said = log.read_text(errors="replace")[-LOG_TAIL:].strip() if log.exists() else ""
    if not started:
        raise HarnessFailedError(f"{end}, before it began\n{said}")
    return f"{end}\n{said}".strip()


def _call_in_child(
    module: str, function: str, case: Case, folder: Path, log: Path, sender: Connection
) -> None:
    die_with_parent(os.getppid())
    gc.disable()  # the process ends before there is anything to collect
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the suite's, who kills this process
    with log.open("wb") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    reloading = importlib.import_module(module)
    sender.send("started")
    sender.send(getattr(reloading, function)(case, folder))


@contextlib.contextmanager
def _server_environment(scratch: Path | None) -> Iterator[None]:
    """The environment that the server, and with it every reload, starts with."""
    before = dict(os.environ)
    os.environ.update(_ENVIRONMENT)
    if scratch is not None:
        os.environ["TMPDIR"] = str(scratch)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def _short_addresses() -> Iterator[None]:
    """Have multiprocessing keep its socket in a folder whose path fits into an address."""
    before = tempfile.tempdir
    if len(os.fsencode(tempfile.gettempdir())) > LONGEST_FOLDER:
        short = (one for one in _SHORT_FOLDERS if os.access(one, os.W_OK | os.X_OK))
        tempfile.tempdir = next(short, before)
    try:
        yield
    finally:
        tempfile.tempdir = before


@contextlib.contextmanager
def _no_errors_shown() -> Iterator[None]:
    """Give what starts now an empty stderr: libraries warn while they are imported."""
    shown = os.dup(2)
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(shown, 2)
        os.close(shown)


@contextlib.contextmanager
def _no_main_module() -> Iterator[None]:
    """Keep multiprocessing from running the suite's main script again in every child.

    It would do so for pickles that refer to ``__main__``; ours do not, and a user's script that
    calls the suite without a guard would call it from within.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
