"""What is forked from a server is as if it had been started by itself."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from saver_conformance.cases.case import WorldKey
from saver_conformance.processes.forked_process import ForkedProcess, ForkServer
from saver_conformance.processes.world import World, start_server

ROOT = Path(__file__).parents[3]
WORKLOAD = "tests.helpers.fake_workload"
PAIR = WorldKey("torch", 2)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ForkServer]:
    monkeypatch.chdir(ROOT)
    with start_server(WORKLOAD) as running:
        yield running


def pair(server: ForkServer) -> World:
    return World(PAIR, prepare=WORKLOAD, process_group=False, server=server)


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def status(pid: int) -> dict[str, str]:
    """What the kernel says of a process, by name."""
    text = Path(f"/proc/{pid}/status").read_text()
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def test_worlds_of_one_server_have_ranks_of_their_own(server: ForkServer) -> None:
    with pair(server) as first, pair(server) as second:
        first.join()
        second.join()
        pids = {*first.pids, *second.pids}
        assert len(pids) == 4
        assert len({status(pid)["PPid"] for pid in pids}) == 1
        assert all(os.getsid(pid) == pid for pid in pids)


def test_world_that_stops_leaves_the_others_of_its_server(server: ForkServer) -> None:
    with pair(server) as first:
        first.join()
        with pair(server) as second:
            second.join()
            gone = second.pids
        assert [answer.status for answer in first.load("tests.helpers.fake_savers:save")] == [
            "returned",
            "returned",
        ]
        deadline = time.monotonic() + 30
        while any(map(exists, gone)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(map(exists, gone))  # reaped, too


def test_process_id_of_a_dead_rank_stays_its_own_until_its_world_stops(
    server: ForkServer,
) -> None:
    with pair(server) as world:
        world.join()
        os.kill(world.pids[0], signal.SIGKILL)
        answers = world.load("tests.helpers.fake_savers:save")
        assert [answer.status for answer in answers] == ["died", "returned"]
        assert "killed by SIGKILL" in answers[0].detail
        assert exists(world.pids[0])


def test_rank_dies_with_its_server_and_is_told_to_have_died(server: ForkServer) -> None:
    with pair(server) as world:
        world.join()
        server.stop()
        answers = world.load("tests.helpers.fake_savers:save")
        assert [answer.status for answer in answers] == ["died", "died"]
        assert not server.runs


def test_rank_prints_and_keeps_files_where_its_world_says(server: ForkServer) -> None:
    with pair(server) as world:
        world.join()
        for pid in world.pids:
            assert Path(f"/proc/{pid}/fd/1").readlink().parent == world.folder
            assert Path(f"/proc/{pid}/fd/0").readlink() == Path(os.devnull)
            held = [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()]
            # Else it could ask its server, or keep it from ending.
            assert [target for target in held if target.startswith("socket:")] == []


def test_signal_to_a_rank_that_was_never_forked_reaches_nobody(server: ForkServer) -> None:
    came: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: came.append(number))
    status, told = os.pipe()
    os.close(told)  # the server has ended
    try:
        rank = ForkedProcess(server, 0, status)
        rank.send_signal(signal.SIGUSR1)
        assert (rank.code, rank.pid, came) == (-signal.SIGKILL, 0, [])
    finally:
        os.close(status)
        signal.signal(signal.SIGUSR1, before)


def test_module_that_cannot_be_imported_is_an_answer_of_the_rank(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    key = WorldKey("torch", 1)
    with World(key, prepare="no.such.workload") as world:
        answers = world._ask({"do": "join"}, 60.0)
    assert [answer.status for answer in answers] == ["raised"]
    assert "No module named" in answers[0].detail


def test_environment_of_any_length_reaches_a_process(
    server: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(40):  # of a length that a variable may have, and a socket may not pass on
        monkeypatch.setenv(f"LONG_{number}", "x" * 100_000)
    with pair(server) as world:
        world.join()
        for pid in world.pids:
            assert Path(f"/proc/{pid}/fd").is_dir()


FULL = """
import os
fork = os.fork
def no_room():
    os.fork = fork
    raise OSError(12, "no room")
os.fork = no_room
"""


def test_process_that_cannot_be_forked_ends_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    (tmp_path / "full.py").write_text(FULL)
    with (
        ForkServer(["full"], {**os.environ, "PYTHONPATH": str(tmp_path)}) as server,
        Path(os.devnull).open("wb") as output,
    ):
        said = [
            (process.pid > 0, process.wait())
            for process in (
                server.start("os:getpid", [], {}, os.environ, output.fileno()) for _ in range(2)
            )
        ]
        assert said == [(False, 1), (True, 0)]
        assert server.runs


def test_process_after_the_server_was_killed_comes_from_a_new_one(server: ForkServer) -> None:
    with pair(server) as first:
        first.join()
        os.kill(server._popen.pid, signal.SIGKILL)
        server._popen.wait()
        with pair(server) as second:
            second.join()
            assert server.runs
            assert {status(pid)["PPid"] for pid in second.pids} == {str(server._popen.pid)}
