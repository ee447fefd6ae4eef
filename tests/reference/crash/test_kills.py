"""Killed anywhere, a save leaves the old model, the new one, or a folder that refuses to load."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.reference.crash.enumeration import Stage
from tests.reference.crash.reading import Reader, digest, snapshot
from tests.reference.crash.scenarios import NEW_SINGLE, OLD_SHARDED, SCENARIOS, Scenario
from tests.reference.crash.syscalls import Disturbance, Watch, run, why_unavailable

from canonical_saver import recover
from canonical_saver.publish import RECORD, STAGING

WHY = why_unavailable()
pytestmark = pytest.mark.skipif(bool(WHY), reason=WHY)
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
ENUMERATED = [(scenario, 1) for scenario in SCENARIOS] + [
    (scenario, 2) for scenario in SCENARIOS if scenario.name != "full to adapters"
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
    tmp_path: Path,
    reader: Reader,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stage = Stage(scenario, ranks, tmp_path, reader)
    for point in stage.points():
        stage.kill(*point)
    check(stage, capsys)
    assert stage.tally.points == sum(stage.tally.calls) > 150


def test_killed_at_every_call_that_changes_something(
    tmp_path: Path, reader: Reader, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = Stage(BY_NAME["sharded to single"], 1, tmp_path, reader)
    for rank, number, call in stage.points():
        if call.changes:
            stage.kill(rank, number, call)
    check(stage, capsys)
    assert set(stage.tally.found) >= {"old", "old, committed", "refused, committed", "new"}


def test_one_of_two_ranks_killed(
    tmp_path: Path, reader: Reader, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = Stage(BY_NAME["single to sharded"], 2, tmp_path, reader)
    points = [point for point in stage.points() if point[2].changes]
    for point in points[::8]:
        stage.kill(*point)
    check(stage, capsys)


@pytest.mark.crash
def test_recovery_killed_at_every_call(
    tmp_path: Path, reader: Reader, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = Stage(BY_NAME["sharded to single"], 1, tmp_path, reader)
    states: list[Any] = []
    points = 0

    def recovery(watch: Watch) -> None:
        watch()
        recover(stage.folder)

    for rank, number, call in stage.points():
        stage.attempt(Disturbance(rank, number, "KILL"))
        found = snapshot(stage.folder)
        staged = {Path(name).name for name in found if name.startswith(STAGING)}
        state = (staged, {k: v for k, v in found.items() if not k.startswith(STAGING)})
        if RECORD not in staged or state in states:
            continue
        states.append(state)
        shutil.copytree(stage.folder, tmp_path / "crashed", symlinks=True)
        (whole,) = run([recovery], stage.folder, tmp_path)
        assert whole.status == "returned", whole.detail
        for second in range(len(whole.calls)):
            shutil.rmtree(stage.folder)
            shutil.copytree(tmp_path / "crashed", stage.folder, symlinks=True)
            (ended,) = run([recovery], stage.folder, tmp_path, Disturbance(0, second, "KILL"))
            assert ended.status == "killed"
            loaded = reader.load(stage.folder)
            whole_model = loaded in (stage.loaded_before, stage.loaded_after)
            assert whole_model or "model" not in loaded, f"a mixture loads: {call}, {second}"
            recover(stage.folder)
            assert snapshot(stage.folder) == stage.after
            points += 1
        shutil.rmtree(tmp_path / "crashed")
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


def test_a_saver_that_writes_in_place_is_caught(tmp_path: Path, reader: Reader) -> None:
    stage = Stage(Scenario("in place", OLD_SHARDED, NEW_SINGLE, save_in_place), 1, tmp_path, reader)
    for rank, number, call in stage.points():
        if call.changes:
            stage.kill(rank, number, call)
    assert any("a mixture loads" in text for text in stage.tally.violations)
    assert any("neither the old nor the new" in text for text in stage.tally.violations)


def test_three_ranks_of_which_one_dies_or_hangs(
    tmp_path: Path, reader: Reader, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = Stage(BY_NAME["sharded to single"], 3, tmp_path, reader, timeout=3.0)
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


@pytest.mark.crash
@pytest.mark.parametrize("effect", ["KILL", "STOP"])
def test_three_ranks_of_which_one_dies_or_hangs_at_any_call(
    effect: str, tmp_path: Path, reader: Reader, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = Stage(BY_NAME["sharded to single"], 3, tmp_path, reader, timeout=3.0)
    points = list(stage.points())
    for point in points if effect == "KILL" else points[:: len(points) // 30]:
        stage.kill(*point, effect)
    check(stage, capsys)
