"""Worlds: every way in which a rank can end is an answer, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from saver_conformance.cases.case import Case, Mode, WorldKey
from saver_conformance.observation.observation import RankOutcome
from saver_conformance.processes import world as world_module
from saver_conformance.processes.world import World

ROOT = Path(__file__).parents[3]
WORKLOAD = "tests.helpers.fake_workload"
PAIR = WorldKey("torch", 2)
CASE = Case(Mode("full", "ddp"), world_size=2)


@pytest.fixture(autouse=True)
def short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(world_module, "GRACE", 0.5)


@pytest.fixture
def pair() -> Iterator[World]:
    with World(PAIR, prepare=WORKLOAD, process_group=False) as world:
        world.join()
        yield world


def save(world: World, folder: Path, function: str, limit: float = 10) -> tuple[RankOutcome, ...]:
    saver = f"tests.helpers.fake_savers:{function}"
    assert [answer.status for answer in world.load(saver)] == ["returned"] * world.key.size
    assert [answer.status for answer in world.prepare(CASE, folder)] == ["returned", "returned"]
    return world.save(saver, limit)


def exists(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_noisy_saver_does_not_garble_the_answers(pair: World, tmp_path: Path) -> None:
    for _ in range(2):
        outcomes = save(pair, tmp_path, "save")
        assert [outcome.status for outcome in outcomes] == ["returned", "returned"]
        assert pair.close()
    assert (tmp_path / "out" / "model.safetensors").exists()


def test_a_rank_that_raises(pair: World, tmp_path: Path) -> None:
    first, second = save(pair, tmp_path, "raises_on_rank_1")
    assert (first.status, second.status) == ("returned", "raised")
    assert second.rank == 1
    assert "RuntimeError: only here" in second.detail


def test_ranks_that_a_failing_rank_leaves_waiting(pair: World, tmp_path: Path) -> None:
    started = time.monotonic()
    first, second = save(pair, tmp_path, "rank_0_waits_for_rank_1_that_raises", limit=60)
    assert time.monotonic() - started < 10
    assert (first.status, second.status) == ("hung", "raised")
    assert "after rank 1 raised" in first.detail
    assert "rank_0_waits_for_rank_1_that_raises" in first.detail


@pytest.mark.parametrize("function", ["sleeps_on_rank_1", "stuck_in_c_on_rank_1"])
def test_a_rank_that_hangs(pair: World, tmp_path: Path, function: str) -> None:
    first, second = save(pair, tmp_path, function, limit=1)
    assert (first.status, second.status) == ("returned", "hung")
    assert "did not return within 1 s" in second.detail
    assert f"in {function}" in second.detail


@pytest.mark.parametrize(
    ("function", "end"),
    [
        ("kills_itself_on_rank_1", "killed by SIGKILL"),
        ("crashes_on_rank_1", "killed by SIGSEGV"),
        ("exits_on_rank_1", "exit code 7"),
    ],
)
def test_a_rank_that_dies(pair: World, tmp_path: Path, function: str, end: str) -> None:
    first, second = save(pair, tmp_path, function)
    assert (first.status, second.status) == ("returned", "died")
    assert end in second.detail
    if function == "kills_itself_on_rank_1":
        assert "last words" in second.detail
    if function == "crashes_on_rank_1":
        assert "string_at" in second.detail


def test_preparing_says_what_is_missing_and_what_broke(pair: World, tmp_path: Path) -> None:
    missing = pair.prepare(Case(CASE.mode, world_size=2, seed=404), tmp_path)
    assert [(answer.status, answer.detail) for answer in missing] == [
        ("unavailable", "the fake library is not installed")
    ] * 2
    broken = pair.prepare(Case(CASE.mode, world_size=2, seed=500), tmp_path)
    assert "the fake workload is broken" in broken[0].detail


@pytest.mark.parametrize(
    "address",
    ["nowhere", "no.such.module:save", "tests.helpers.fake_savers:missing", "os:sep"],
)
def test_an_address_without_a_saver(pair: World, address: str) -> None:
    answers = pair.load(address)
    assert [answer.status for answer in answers] == ["unavailable"] * 2
    assert "Traceback" not in answers[0].detail


def test_stopping_leaves_nothing(tmp_path: Path) -> None:
    with World(PAIR, prepare=WORKLOAD, process_group=False) as world:
        world.join()
        save(world, tmp_path, "leaves_a_child")
        pids = [*world.pids, *(int(p.read_text()) for p in (tmp_path / "out").iterdir())]
        assert all(exists(pid) for pid in pids)
    time.sleep(0.2)
    assert [pid for pid in pids if exists(pid)] == []
    assert not world.folder.exists()


def test_ranks_end_with_a_judge_that_is_killed() -> None:
    judge = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import time; from saver_conformance.processes.world import World, WorldKey;"
            f"world = World(WorldKey('torch', 2), prepare={WORKLOAD!r}, process_group=False);"
            "world.join(); print(*world.pids, world.folder, flush=True); time.sleep(600)",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert judge.stdout is not None
    first, second, folder = judge.stdout.readline().split()
    judge.kill()
    judge.wait()
    judge.stdout.close()
    time.sleep(0.5)
    assert [pid for pid in (int(first), int(second)) if exists(pid)] == []
    for leftover in Path(folder).iterdir():  # nobody can tidy up after SIGKILL
        leftover.unlink()
    Path(folder).rmdir()


def test_ranks_do_not_hear_the_terminals_interrupt(pair: World) -> None:
    for pid in pair.pids:
        assert os.getsid(pid) == pid
        os.kill(pid, signal.SIGINT)
    assert all(
        answer.status == "returned" for answer in pair.load("tests.helpers.fake_savers:save")
    )


def test_one_rank_alone_has_no_launchers_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    environment = world_module._make_environment(WorldKey("torch", 1), 0, 1, Path("/tmp"))
    assert not {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR"} & set(environment)


def test_deepspeed_has_worlds_of_its_own() -> None:
    assert WorldKey.of(Mode("full", "zero3"), 2) == WorldKey("deepspeed", 2)
    assert WorldKey.of(Mode("qlora", "fsdp2"), 2) == WorldKey("torch", 2)
    assert WorldKey.of(Mode("lora", "single"), 1) == WorldKey("torch", 1)


@pytest.mark.parametrize(
    ("size", "nodes", "local"),
    [(2, 1, [0, 1]), (2, 2, [0, 0]), (3, 2, [0, 1, 0]), (4, 2, [0, 1, 0, 1])],
)
def test_ranks_have_local_numbers_on_their_node(size, nodes, local):
    key = WorldKey("torch", size, nodes)
    found = [
        world_module._make_environment(key, rank, 1, Path("/tmp"))["LOCAL_RANK"]
        for rank in range(size)
    ]
    assert found == [str(rank) for rank in local]


def test_several_ranks_join_a_process_group(tmp_path: Path) -> None:
    with World(PAIR, prepare=WORKLOAD) as world:
        world.join()
        outcomes = save(world, tmp_path, "sums_over_the_group")
    assert [(outcome.status, outcome.detail) for outcome in outcomes] == [("returned", "")] * 2
