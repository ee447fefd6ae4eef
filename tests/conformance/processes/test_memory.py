"""The growth of a process's memory is seen from outside, pages of files left out."""

from __future__ import annotations

import subprocess
import sys

from saver_conformance.processes.memory import MemoryWatch, read_memory

TAKING = """
import mmap, sys
sys.stdin.readline()
kept = bytearray(50_000_000)
with open(sys.argv[1], "rb") as file:
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    sum(mapped[::4096])
print("done", flush=True)
sys.stdin.readline()
"""


def test_watch_sees_what_a_process_takes_and_no_pages_of_files(tmp_path):
    (tmp_path / "file").write_bytes(b"x" * 50_000_000)
    command = [sys.executable, "-c", TAKING, str(tmp_path / "file")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        with MemoryWatch([process.pid]) as watch:
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "done\n"
        process.kill()
    (growth,) = watch.growth
    assert 45_000_000 < growth < 75_000_000


def test_watch_of_nobody_says_nothing():
    with MemoryWatch(()) as watch:
        pass
    assert watch.growth is None


def test_memory_of_a_process_that_has_ended_is_none():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert read_memory(process.pid) == 0
