"""Compiles the operator that DeepSpeed would compile in the ranks, which wait for each other there.

``python -m saver_conformance.processes.compile_operators`` says what it waits for, line by line,
and ends when the operator is there. Only one process compiles at a time; whoever is killed
meanwhile, with whatever signal, leaves nothing that the next one waits for.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

from saver_conformance.processes.protocol import die_with_parent

LOCK = "lock"
"""Name of the file that torch makes while it builds an extension, and removes when it is done.

It says nothing of who made it, and everybody else waits until it is gone
(torch/utils/file_baton.py). While its process lives, it has the file open.
"""
RELEASE = 1.0
"""Seconds between two looks at a lock: its owner closes the file just before it removes it."""
QUIET = 600.0
"""Seconds without a change in the folder after which a lock is given up on a file system that does
not tell whether anybody has the file open."""
POLL = 0.1
WATCH = 0.5
"""Seconds between two looks for compilers."""

_NO_LEASES = (errno.EINVAL, errno.ENOLCK, errno.EOPNOTSUPP, errno.EACCES, errno.EPERM)

Note = Callable[[str], None]


def build_extension(folder: Path, name: str, build: Callable[[], object], note: Note) -> None:
    """Have ``build`` compile the extension ``name`` in ``folder``, or find it there.

    Args:
        folder: where torch keeps the extension, and its lock.
        name: the extension's name, for messages, and of its file.
        build: compiles what is missing, and loads it.
        note: is told what takes long.
    """
    with _alone(folder, name, note):
        wait_for_compilers(folder, note)
        clear_lock(folder / LOCK, note)
        with _tell_of_compilers(folder, name, note):
            build()


def clear_lock(lock: Path, note: Note) -> None:
    """Wait for the lock to go, and remove it where its owner is gone."""
    told = False
    while lock.exists():
        if is_abandoned(lock):
            lock.unlink(missing_ok=True)
            note(f"removed {lock}, which a killed process had left")
            return
        if not told:
            note(f"waiting for another process that compiles, and holds {lock}")
            told = True
        time.sleep(POLL)


def is_abandoned(lock: Path) -> bool:
    """Whether nobody has the file open any more, though it is still there.

    The kernel grants a write lease on a file only if nobody else has it open, in no container
    either. Where it grants none at all, time has to tell.
    """
    first = _read_identity(lock)
    with contextlib.suppress(FileNotFoundError):
        if _is_open_elsewhere(lock):
            return False
        time.sleep(RELEASE)
        return first is not None and first == _read_identity(lock) and not _is_open_elsewhere(lock)
    return False


def wait_for_compilers(folder: Path, note: Note) -> None:
    """Wait for compilers that go on in ``folder`` after their parent was killed."""
    told = False
    while running := list(find_processes_in(folder)):
        if not told:
            note(f"waiting for compilers in {folder}: processes {', '.join(map(str, running))}")
            told = True
        time.sleep(POLL)


def find_processes_in(folder: Path) -> Iterator[int]:
    """Other processes that work in ``folder``, as far as this user may see them."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (entry / "cwd").readlink() == folder.resolve() and int(entry.name) != os.getpid():
                yield int(entry.name)


@contextlib.contextmanager
def _tell_of_compilers(folder: Path, name: str, note: Note) -> Iterator[None]:
    """Say that ``name`` is compiled: at once where it is missing, else when compilers run.

    What is there may have been compiled for another Python or torch.
    """
    done = threading.Event()

    def watch() -> None:
        while not done.wait(WATCH):
            if any(find_processes_in(folder)):
                note(f"compiling DeepSpeed's operator {name} anew (this takes minutes)")
                return

    watching = threading.Thread(target=watch, daemon=True)
    if (folder / f"{name}.so").exists():
        watching.start()
    else:
        note(f"compiling DeepSpeed's operator {name} (once; this takes minutes)")
    try:
        yield
    finally:
        done.set()


def _is_open_elsewhere(lock: Path) -> bool:
    """Raises FileNotFoundError when the lock is gone."""
    descriptor = os.open(lock, os.O_RDONLY)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError as error:
        if error.errno not in _NO_LEASES:
            return True
        changed = max(path.stat().st_mtime for path in (lock, *lock.parent.iterdir()))
        return time.time() - changed < QUIET
    finally:
        os.close(descriptor)  # the lease goes with it
    return False


def _read_identity(lock: Path) -> tuple[int, int] | None:
    try:
        found = lock.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_ctime_ns


@contextlib.contextmanager
def _alone(folder: Path, name: str, note: Note) -> Iterator[None]:
    """Keep other processes of this suite out; the kernel lets them in when this one ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{name}.saver-conformance").open("w") as own:
        try:
            fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note(f"waiting for another run that compiles {name}")
            fcntl.flock(own, fcntl.LOCK_EX)
        yield


def main() -> None:
    """Compile DeepSpeed's operator for communication on CPUs, if it is used here."""
    die_with_parent(os.getppid())
    notes = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no note
    if find_spec("deepspeed") is None:
        return
    from deepspeed.accelerator import get_accelerator
    from torch.utils import cpp_extension

    if get_accelerator().device_name() != "cpu":
        return
    builder = get_accelerator().create_op_builder("ShareMemCommBuilder")
    if builder is None or not builder.is_compatible(verbose=False):
        return
    folder = Path(cpp_extension._get_build_directory(builder.name, verbose=False))
    build_extension(
        folder,
        builder.name,
        lambda: builder.load(verbose=False),
        lambda text: print(text, file=notes, flush=True),
    )
    sys.stdout.flush()
    os._exit(0)  # no destructor of a framework may delay the end


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    main()
