"""Operators that are compiled once: what a killed process leaves is recognised, nothing else is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from saver_conformance.errors import HarnessFailedError
from saver_conformance.processes import compile_operators, interrupts
from saver_conformance.processes.compile_operators import build_extension, clear_lock, is_abandoned
from saver_conformance.processes.operators import run_operators

SLOW_BUILD = """
import sys, time
from pathlib import Path
from torch.utils.file_baton import FileBaton
from saver_conformance.processes.compile_operators import build_extension
folder = Path(sys.argv[1])

def build():
    baton = FileBaton(str(folder / "lock"))
    assert baton.try_acquire()
    (folder / "begun").touch()
    time.sleep(600)

build_extension(folder, "slow", build, lambda text: print(text, flush=True))
"""
HOLDER = """
import sys, time
from torch.utils.file_baton import FileBaton
baton = FileBaton(sys.argv[1])
assert baton.try_acquire()
print("held", flush=True)
sys.stdin.read()
baton.release()
"""


def wait_until(path: Path) -> None:
    while not path.exists():
        time.sleep(0.05)


def build_here(folder: Path) -> list[str]:
    """Build with torch's own lock, as the extension's loader does; what was said meanwhile."""
    from torch.utils.file_baton import FileBaton

    notes: list[str] = []

    def build() -> None:
        baton = FileBaton(str(folder / "lock"))
        assert baton.try_acquire()
        (folder / "slow.so").touch()
        baton.release()

    build_extension(folder, "slow", build, notes.append)
    return notes


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_build_extension_after_a_killed_build_works(number: signal.Signals, tmp_path: Path) -> None:
    folder = tmp_path / "slow"
    first = subprocess.Popen([sys.executable, "-c", SLOW_BUILD, folder], stderr=subprocess.DEVNULL)
    wait_until(folder / "begun")
    first.send_signal(number)
    first.wait()
    assert (folder / "lock").exists()
    notes = build_here(folder)
    assert any("which a killed process had left" in note for note in notes)
    assert any(note.startswith("compiling DeepSpeed's operator slow") for note in notes)
    assert sorted(path.name for path in folder.iterdir()) == ["begun", "slow.so"]
    assert build_here(folder) == []


def test_clear_lock_waits_for_a_live_owner(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    assert not is_abandoned(lock)
    notes: list[str] = []
    waiting = threading.Thread(target=clear_lock, args=(lock, notes.append))
    waiting.start()
    while not notes:
        time.sleep(0.05)
    assert lock.exists()
    holder.communicate(b"")
    waiting.join()
    assert notes == [f"waiting for another process that compiles, and holds {lock}"]
    assert holder.returncode == 0  # its own lock was there for it to remove


def test_is_abandoned_spares_a_lock_that_is_being_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "lock"
    lock.touch()
    monkeypatch.setattr(time, "sleep", lambda _: lock.unlink())
    assert not is_abandoned(lock)


def test_is_abandoned_needs_quiet_where_the_kernel_gives_no_leases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr("fcntl.fcntl", refuse)
    monkeypatch.setattr(compile_operators, "RELEASE", 0)
    lock = tmp_path / "lock"
    lock.touch()
    assert not is_abandoned(lock)
    long_ago = time.time() - 2 * compile_operators.QUIET
    os.utime(lock, (long_ago, long_ago))
    assert is_abandoned(lock)


def test_build_extension_waits_for_compilers_that_outlived_their_parent(tmp_path: Path) -> None:
    folder = tmp_path / "slow"
    folder.mkdir()
    compiler = subprocess.Popen(
        [sys.executable, "-c", "import sys; print(1, flush=True); sys.stdin.read()"],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert compiler.stdout is not None
    compiler.stdout.readline()
    notes: list[str] = []
    built = threading.Event()
    thread = threading.Thread(
        target=build_extension, args=(folder, "slow", built.set, notes.append)
    )
    thread.start()
    while not notes:
        time.sleep(0.05)
    assert not built.is_set()
    compiler.communicate(b"")
    thread.join()
    assert built.is_set()
    assert f"processes {compiler.pid}" in notes[0]


def test_build_extension_says_when_what_is_there_is_compiled_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "slow"
    folder.mkdir()
    (folder / "slow.so").touch()
    monkeypatch.setattr(compile_operators, "WATCH", 0.01)
    notes: list[str] = []

    def compile_anew() -> None:
        wait = [sys.executable, "-c", "import sys; sys.stdin.read()"]
        compiler = subprocess.Popen(wait, cwd=folder, stdin=subprocess.PIPE)
        while not notes:
            time.sleep(0.05)
        compiler.communicate(b"")

    build_extension(folder, "slow", compile_anew, notes.append)
    assert notes == ["compiling DeepSpeed's operator slow anew (this takes minutes)"]


def test_build_extension_lets_one_process_build_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "slow"
    first = subprocess.Popen([sys.executable, "-c", SLOW_BUILD, folder], stderr=subprocess.DEVNULL)
    wait_until(folder / "begun")
    notes: list[str] = []
    thread = threading.Thread(
        target=build_extension, args=(folder, "slow", lambda: None, notes.append)
    )
    thread.start()
    while not notes:
        time.sleep(0.05)
    assert notes == ["waiting for another run that compiles slow"]
    first.kill()
    first.wait()
    thread.join()


def write_module(folder: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    (folder / "made_operators.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)


def test_run_operators_passes_on_each_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_module(
        tmp_path, monkeypatch, "import os; print('one\\ntwo'); print(os.environ['TMPDIR'])"
    )
    notes: list[str] = []
    run_operators("made_operators", notes.append, tmp_path, cpu=True)
    assert notes == ["one", "two", str(tmp_path)]


def test_run_operators_that_fail_are_the_harness_failing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_module(tmp_path, monkeypatch, "raise SystemExit('no compiler')")
    with pytest.raises(HarnessFailedError, match="no compiler"):
        run_operators("made_operators", print, tmp_path, cpu=True)


def test_run_operators_that_are_interrupted_leave_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(child.pid, flush=True); child.wait()"
    )
    write_module(tmp_path, monkeypatch, source)
    pids: list[int] = []

    def interrupt(line: str) -> None:
        pids.append(int(line))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_operators("made_operators", interrupt, tmp_path, cpu=True)
    while (stat := Path(f"/proc/{pids[0]}/stat")).exists():
        if stat.read_text().rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.05)
    assert not interrupts._received.is_set()
