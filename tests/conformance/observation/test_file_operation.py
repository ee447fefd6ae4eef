"""What ranks do to files is read from traces, and compared."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from saver_conformance.observation.file_operation import FileOperation, conflicts, joined
from saver_conformance.processes import strace
from saver_conformance.processes.file_trace import Tracers, read_operations

TRACE = """\
7 openat(AT_FDCWD</out>, "config.json", O_WRONLY|O_CREAT|O_TRUNC|O_CLOEXEC, 0666) = 3</out/config.json>
7 openat(AT_FDCWD</out>, "a", O_WRONLY|O_CREAT|O_CLOEXEC, 0666) = 3</out/a>
7 pwrite64(3</out/a>, ""..., 100, 4096 <unfinished ...>
8 rename("/out/gone", "/out/b") = -1 ENOENT (No such file or directory)
8 renameat2(AT_FDCWD</out>, "a", AT_FDCWD</out>, "../out/b", RENAME_NOREPLACE) = 0
7 <... pwrite64 resumed>) = 100
7 unlinkat(5</out/old>, "index", 0) = 0
7 unlink("/elsewhere/file") = 0
7 write(1</log>, ""..., 9) = 9
7 lseek(3</out/a>, 10, SEEK_SET) = 10
7 write(3</out/a>, ""..., 5) = 5
7 writev(3</out/a>, [...], 2) = 6
7 pwritev2(3</out/a>, [...], 2, 50, 0) = 3
7 pwritev2(3</out/a>, [{..., 5000, 0) = 27
7 ftruncate(3</out/a>, 4096) = 0
7 ftruncate(3</out/a>, 0) = 0
7 close(3</out/a>) = 0
7 write(3</out/a>, ""..., 5) = 5
7 openat(AT_FDCWD</out>, "log", O_WRONLY|O_CREAT|O_APPEND|O_CLOEXEC, 0666) = 3</out/log>
7 write(3</out/log>, ""..., 5) = 5
7 openat(AT_FDCWD</out>, "b", O_RDWR|O_CREAT|O_EXCL, 0600) = 4</out/b>
7 read(4</out/b>, ""..., 8) = 8
7 sendfile(4</out/b>, 5</in>, [0] => [99], 8388608) = 99
7 copy_file_range(5</in>, NULL, 4</out/b>, [7] => [27], 20, 0) = 20
7 copy_file_range(5</in>, NULL, 4</out/b>, NULL, 20, 0) = 20
7 mkdir("/out/d", 0777) = 0
7 symlink("b", "/out/l") = 0
7 truncate("/out/b", 0) = 0
"""  # noqa: E501


def test_deeds_are_read_with_their_places() -> None:
    assert list(read_operations(TRACE, Path("/out"))) == [
        FileOperation("truncates", "/out/config.json"),
        FileOperation("renames", "/out/b"),
        FileOperation("writes", "/out/a", 4096, 4196),
        FileOperation("removes", "/out/old/index"),
        FileOperation("writes", "/out/a", 10, 15),
        FileOperation("writes", "/out/a", 15, 21),
        FileOperation("writes", "/out/a", 50, 53),
        FileOperation("writes", "/out/a", 5000, 5027),
        FileOperation("truncates", "/out/a"),
        FileOperation("creates", "/out/b"),
        FileOperation("writes", "/out/b", 8, 107),
        FileOperation("writes", "/out/b", 7, 27),
        FileOperation("writes", "/out/b", 107, 127),
        FileOperation("creates", "/out/d"),
        FileOperation("creates", "/out/l"),
        FileOperation("truncates", "/out/b"),
    ]


def test_what_is_written_in_a_row_is_one_deed() -> None:
    written = [FileOperation("writes", "/out/a", start, start + 10) for start in (20, 0, 10, 40)]
    assert list(
        joined([*written, FileOperation("removes", "/out/a"), FileOperation("removes", "/out/a")])
    ) == [
        FileOperation("removes", "/out/a"),
        FileOperation("writes", "/out/a", 0, 30),
        FileOperation("writes", "/out/a", 40, 50),
    ]


def test_each_conflict_is_told_once_with_its_bytes() -> None:
    first = [FileOperation("removes", "/out/a"), FileOperation("writes", "/out/a", 0, 30)]
    second = [FileOperation("writes", "/out/a", 20, 25), FileOperation("writes", "/out/a", 28, 90)]
    third = [FileOperation("removes", "/out/a")]
    assert list(conflicts([first, second, third])) == [
        (0, 1, FileOperation("writes", "/out/a", 20, 25)),
        (0, 2, FileOperation("removes", "/out/a")),
    ]


def test_only_what_meets_conflicts() -> None:
    first = FileOperation("writes", "/out/a", 0, 10)
    assert first.conflicts_with(FileOperation("writes", "/out/a", 9, 20))
    assert not first.conflicts_with(FileOperation("writes", "/out/a", 10, 20))
    assert not first.conflicts_with(FileOperation("writes", "/out/b", 0, 10))
    assert FileOperation("removes", "/out/a").conflicts_with(FileOperation("removes", "/out/a"))
    assert not FileOperation("removes", "/out/a").conflicts_with(FileOperation("renames", "/out/a"))


def test_without_strace_the_reason_is_told(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(strace, "is_available", lambda: False)
    assert "apt-get install strace" in Tracers((1, 2), tmp_path).attach()


def test_a_deed_without_a_place_is_about_the_whole_file():
    assert (FileOperation("removes", "a").start, FileOperation("removes", "a").end) == (0, 0)


WRITING = """
import sys, time
sys.stdin.readline()
open(sys.argv[1] + "/new", "w").write("x")
print("done", flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(not strace.is_available(), reason=strace.MISSING)
def test_a_process_is_traced_while_tracers_are_attached(tmp_path):
    command = [sys.executable, "-c", WRITING, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        try:
            tracers = Tracers((process.pid,), tmp_path)
            assert tracers.attach() == ""
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "done\n"
            tracers.detach()
        finally:
            process.kill()
    ((created, *_),) = tracers.read(tmp_path)
    assert created.path == str(tmp_path / "new")
