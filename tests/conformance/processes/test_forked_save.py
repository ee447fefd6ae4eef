"""System calls are read from traces, spread, and made to fail in forks that harm no rank."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from saver_conformance.observation.process_diff import ABSENT, Change, changes
from saver_conformance.processes import fault_injection, strace
from saver_conformance.processes.forked_save import ForkedSave, save_in_fork
from saver_conformance.processes.strace import Call, options, read_calls, spread, was_injected

needs_strace = pytest.mark.skipif(not strace.is_available(), reason=strace.MISSING)

TRACE = """\
7 openat(AT_FDCWD</home>, "/lib/x.so", O_RDONLY|O_CLOEXEC) = 3</lib/x.so>
7 mkdir("/out", 0777) = -1 EEXIST (File exists)
7 openat(AT_FDCWD</home>, "/out/a", O_WRONLY|O_CREAT|O_CLOEXEC, 0666 <unfinished ...>
8 openat(AT_FDCWD</home>, "/out/a", O_RDONLY|O_CLOEXEC) = 4</out/a>
7 <... openat resumed>) = 3</out/a>
8 write(1</log>, ""..., 9) = 9
8 write(3</out/a>, ""..., 9) = 9
7 rename("/out/a", "/outer/b") = 0
7 unlink("/outer/b") = 0
7 +++ exited with 0 +++
"""


def test_calls_that_change_the_folder_are_counted_by_thread(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(TRACE)
    calls = read_calls(log, Path("/out"))
    assert [(call.name, call.number, call.creates) for call in calls] == [
        ("openat", 2, True),
        ("write", 2, True),
        ("rename", 1, False),
    ]
    assert '"a"' in calls[0].text


def test_points_are_spread_from_the_first_to_the_last() -> None:
    calls = [Call("write", number, "", True) for number in range(1, 101)]
    chosen = [call.number for call in spread(calls, 20)]
    assert (chosen[0], chosen[-1], len(set(chosen))) == (1, 100, 20)
    assert spread(calls[:3], 20) == calls[:3]
    assert spread(calls, 1) == calls[:1]


def write(path: Path, count: int = 3) -> None:
    for number in range(count):
        (path / str(number)).write_text("x")


def alone(folder: Path, strace: Sequence[str] = (), limit: float = 10, grace: float = 0):
    folder.mkdir(exist_ok=True)
    return ForkedSave(strace, folder, 0, limit, grace)


@needs_strace
def test_a_rehearsal_is_traced_killed_and_failed(tmp_path: Path) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    out.mkdir()
    assert (
        save_in_fork(lambda: write(out), alone(tmp_path / "1", options(log))).status == "returned"
    )
    calls = read_calls(log, out)
    assert [call.name for call in calls] == ["openat", "write"] * 3
    for path in out.iterdir():
        path.unlink()
    kill = options(log, calls[3], "signal=KILL")
    killed = save_in_fork(lambda: write(out), alone(tmp_path / "2", kill))
    assert (killed.status, killed.detail) == ("died", "killed by SIGKILL")
    assert sorted(path.name for path in out.iterdir()) == ["0", "1"]
    assert not was_injected(log, out)
    fail = options(log, calls[1], "error=ENOSPC")
    failed = save_in_fork(lambda: write(out), alone(tmp_path / "3", fail))
    assert failed.status == "raised"
    assert was_injected(log, out)
    assert not was_injected(log, tmp_path / "elsewhere")
    assert "No space left" in failed.detail


@pytest.mark.parametrize(
    ("save", "status", "said"),
    [
        (lambda: None, "returned", ""),
        (lambda: 1 / 0, "raised", "ZeroDivisionError"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "died", "SIGKILL"),
        (lambda: os._exit(9), "died", "exit code 9"),
        (lambda: time.sleep(60), "hung", "0.5 s"),
    ],
)
def test_every_end_of_a_rehearsal_is_told(save, status, said, tmp_path: Path) -> None:
    ended = save_in_fork(save, alone(tmp_path, limit=0.5))
    assert ended.status == status
    assert said in ended.detail
    assert (tmp_path / "failed-0").exists() == (status != "returned")


def test_a_rank_gets_some_grace_once_another_has_failed(tmp_path: Path) -> None:
    (tmp_path / "failed-1").touch()
    ended = save_in_fork(lambda: time.sleep(60), alone(tmp_path, grace=0.1))
    assert (ended.status, ended.detail) == (
        "hung",
        "did not return within 0.1 s after another rank failed",
    )
    assert save_in_fork(lambda: time.sleep(0.2), alone(tmp_path, grace=9)).status == "returned"


@pytest.mark.parametrize("make", [multiprocessing.Lock, multiprocessing.RLock])
def test_save_in_fork_after_a_copy_died_with_a_lock_does_not_wait(make, tmp_path: Path) -> None:
    lock = make()  # as tqdm has one

    def save(*, die: bool) -> None:
        with lock:
            if die:
                os.kill(os.getpid(), signal.SIGKILL)

    assert save_in_fork(partial(save, die=True), alone(tmp_path / "1")).status == "died"
    assert save_in_fork(partial(save, die=False), alone(tmp_path / "2")).status == "returned"
    assert lock.acquire(timeout=1), "the rank's own lock was taken"
    lock.release()


def test_save_in_fork_returned_copy_lives_until_the_last_rank_ends(tmp_path: Path) -> None:
    """What a rank sends in the background when its save returns must reach the others."""
    late = tmp_path / "late"

    def save() -> None:
        threading.Timer(0.3, late.touch).start()

    forked = replace(alone(tmp_path / "meeting"), ranks=2)
    threading.Timer(1, (forked.meeting / "ended-1").touch).start()
    assert save_in_fork(save, forked).status == "returned"
    assert late.exists()


def test_copies_that_do_not_find_each_other_save_nothing(tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    ended = save_in_fork(saved.touch, alone(tmp_path), connect=lambda: 1 / 0)
    assert ended.status == "unready"
    assert "ZeroDivisionError" in ended.detail
    assert not saved.exists()


def test_a_tracer_that_does_not_attach_is_told(tmp_path: Path) -> None:
    command = ["sh", "-c", "echo not permitted >&2; exit 1"]
    ended = save_in_fork(lambda: None, alone(tmp_path, command))
    assert (ended.status, ended.detail.strip()) == ("unready", "not permitted")


def test_without_strace_nothing_is_disturbed(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(strace, "is_available", lambda: False)
    crashes = fault_injection.inject_faults(None, "a:b", 1, tmp_path, points=1)
    assert "apt-get install strace" in crashes.unavailable


def test_changes_name_what_came_what_went_and_what_is_other() -> None:
    before = {"flags": {"a": "1", "b": "2", "c": "3"}}
    after = {"flags": {"a": "1", "b": "4", "d": "5"}}
    assert list(changes(before, after)) == [
        Change("flags", "b", "2", "4"),
        Change("flags", "c", "3", ABSENT),
        Change("flags", "d", ABSENT, "5"),
    ]
