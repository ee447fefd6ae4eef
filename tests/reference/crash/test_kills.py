"""Killed anywhere, a save leaves the old model, the new one, or a folder that refuses to load."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from tests.helpers import models
from tests.reference.crash.enumeration import GRACE, Stage
from tests.reference.crash.reading import Reader, digest, snapshot
from tests.reference.crash.scenarios import NEW_SINGLE, OLD_SHARDED, SCENARIOS, Scenario
from tests.reference.crash.syscalls import Fault, Watch, run, why_unavailable

from canonical_saver import recover, save_model
from canonical_saver.collectives import Ranks
from canonical_saver.publishing.staging import RECORD, STAGING

WHY = why_unavailable()
pytestmark = pytest.mark.skipif(bool(WHY), reason=WHY)
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
ENUMERATED = [(scenario, 1) for scenario in SCENARIOS] + [
    (scenario, 2) for scenario in SCENARIOS if not scenario.name.startswith("full ")
]


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader()


def check(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\n{stage.tally}")
    assert not stage.tally.violations, "\n".join(stage.tally.violations)
    assert stage.tally.points


@pytest.mark.crash
@pytest.mark.parametrize(
    ("scenario", "ranks"), ENUMERATED, ids=[f"{s.name}, {ranks}" for s, ranks in ENUMERATED]
)
def test_killed_at_every_call(
    scenario: Scenario,
    ranks: int,
    room: Path,
    reader: Reader,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stage = Stage(scenario, ranks, room, reader)
    for point in stage.points():
        stage.kill(*point)
    check(stage, capsys)
    assert stage.tally.points == sum(stage.tally.calls) > 150


def test_killed_at_every_call_that_changes_something(
    room: Path, reader: Reader, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = Stage(BY_NAME["sharded to single"], 1, room, reader)
    for rank, number, call in stage.points():
        if call.changes:
            stage.kill(rank, number, call)
    check(stage, capsys)
    assert set(stage.tally.found) >= {"old", "old, committed", "refused, committed", "new"}


def test_one_of_two_ranks_killed(
    room: Path, reader: Reader, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = Stage(BY_NAME["single to sharded"], 2, room, reader)
    points = [point for point in stage.points() if point[2].changes]
    for point in points[::8]:
        stage.kill(*point)
    check(stage, capsys)


@pytest.mark.crash
def test_recovery_killed_at_every_call(
    room: Path, reader: Reader, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = Stage(BY_NAME["sharded to single"], 1, room, reader)
    states: list[Any] = []
    points = 0

    def recovery(watch: Watch) -> None:
        watch()
        recover(stage.folder)

    for rank, number, call in stage.points():
        stage.attempt(Fault(rank, number, "KILL"))
        found = snapshot(stage.folder)
        staged = {Path(name).name for name in found if name.startswith(STAGING)}
        state = (staged, {k: v for k, v in found.items() if not k.startswith(STAGING)})
        if RECORD not in staged or state in states:
            continue
        states.append(state)
        shutil.copytree(stage.folder, room / "crashed", symlinks=True)
        (whole,) = run([recovery], stage.folder, room)
        assert whole.status == "returned", whole.detail
        for second in range(len(whole.calls)):
            shutil.rmtree(stage.folder)
            shutil.copytree(room / "crashed", stage.folder, symlinks=True)
            (ended,) = run([recovery], stage.folder, room, Fault(0, second, "KILL"))
            assert ended.status == "killed"
            loaded = reader.load(stage.folder)
            whole_model = loaded in (stage.loaded_before, stage.loaded_after)
            assert whole_model or "model" not in loaded, f"a mixture loads: {call}, {second}"
            recover(stage.folder)
            assert snapshot(stage.folder) == stage.after
            points += 1
        shutil.rmtree(room / "crashed")
    with capsys.disabled():
        print(f"\nrecovery: {points} points from {len(states)} states of a crash, no violation")
    assert len(states) > 10


def test_the_reader_reads_the_saved_bits(tmp_path: Path, reader: Reader) -> None:
    model = NEW_SINGLE.make()
    Scenario("", None, NEW_SINGLE).saver(model, tmp_path / "m", **NEW_SINGLE.options)
    assert reader.load(tmp_path / "m")["model"] == digest(model.state_dict())
    (tmp_path / "m" / "config.json").unlink()
    assert "model" not in reader.load(tmp_path / "m")


def save_in_place(model: Any, folder: Path, tokenizer: Any) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def test_a_saver_that_writes_in_place_is_caught(room: Path, reader: Reader) -> None:
    stage = Stage(Scenario("in place", OLD_SHARDED, NEW_SINGLE, save_in_place), 1, room, reader)
    for rank, number, call in stage.points():
        if call.changes:
            stage.kill(rank, number, call)
    assert any("a mixture loads" in text for text in stage.tally.violations)
    assert any("neither the old nor the new" in text for text in stage.tally.violations)


def test_three_ranks_of_which_one_dies_or_hangs(
    room: Path, reader: Reader, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = Stage(BY_NAME["sharded to single"], 3, room, reader, timeout=3.0)
    calls = stage.tally.calls
    for rank, number, effect in (
        (0, calls[0] // 2, "KILL"),
        (1, calls[1] // 2, "KILL"),
        (2, calls[2] - 1, "KILL"),
        (0, calls[0] // 2, "STOP"),
        (1, calls[1] // 2, "STOP"),
    ):
        stage.kill(rank, number, stage.calls[rank][number], effect)
    check(stage, capsys)


def test_the_group_for_main_memory_waits_no_longer_than_the_default_group(tmp_path: Path) -> None:
    """As under NCCL: the default group carries no CPU tensors, so the saver makes one that does."""
    timeout = timedelta(seconds=2)

    def body(rank: int) -> Callable[[Watch], Any]:
        def save(_: Watch) -> None:
            store = f"file://{tmp_path}/store"
            dist.init_process_group(
                "cuda:gloo", init_method=store, rank=rank, world_size=2, timeout=timeout
            )
            assert Ranks.current().gather(rank) == [0, 1]
            begun = time.monotonic()
            if rank == 1:
                time.sleep(2 * timeout.seconds)
                return
            try:
                save_model(models.llama(), tmp_path / "m")
            finally:
                assert time.monotonic() - begun < timeout.seconds + GRACE

        return save

    first, _ = run([body(0), body(1)], tmp_path, tmp_path)
    assert first.status == "refused", first
    assert "lost the other ranks" in first.detail


@pytest.mark.crash
@pytest.mark.parametrize("effect", ["KILL", "STOP"])
def test_three_ranks_of_which_one_dies_or_hangs_at_any_call(
    effect: str, room: Path, reader: Reader, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = Stage(BY_NAME["sharded to single"], 3, room, reader, timeout=3.0)
    points = list(stage.points())
    for point in points if effect == "KILL" else points[:: len(points) // 30]:
        stage.kill(*point, effect)
    check(stage, capsys)
