"""What one more step of training says of a save, with ranks that only pretend to train."""

from __future__ import annotations

from pathlib import Path

import pytest

from saver_conformance.cases.case import Case, Mode
from saver_conformance.errors import HarnessFailedError
from saver_conformance.folder.safetensors import write
from saver_conformance.observation.observation import RankOutcome, Tensor
from saver_conformance.processes.control_run import run_control
from saver_conformance.processes.protocol import Answer

CASE = Case(Mode("full", "single"), probe="control_run")


class World:
    """Ends with one of ``weights`` after another."""

    def __init__(self, *weights: bytes) -> None:
        self._weights = list(weights)

    def save(self, saver: str, limit: float) -> tuple[RankOutcome, ...]:
        return (RankOutcome(0, "returned"),)

    def prepare(self, case: Case, folder: Path) -> tuple[Answer, ...]:
        return (Answer("returned"),)

    def step(self, path: Path) -> tuple[Answer, ...]:
        write(path, {"w": Tensor("U8", (1,), self._weights.pop(0))})
        return (Answer("returned"),)

    def close(self) -> bool:
        return True


def differences(folder: Path, *weights: bytes) -> list[str]:
    (folder / "out").mkdir()
    world = World(*weights)
    control = run_control(world, "saver", 1, CASE, folder)  # type: ignore[arg-type]
    assert not world._weights, "a training too few"
    return [difference.found for difference in control.differences]


def test_training_on_alike_takes_one_twin(tmp_path: Path) -> None:
    assert differences(tmp_path, b"a", b"a") == []


def test_training_on_differently_is_told_when_twins_agree(tmp_path: Path) -> None:
    (found,) = differences(tmp_path, b"b", b"a", b"a")
    assert found.startswith("62")


def test_a_twin_that_went_astray_accuses_nobody(tmp_path: Path) -> None:
    assert differences(tmp_path, b"a", b"z", b"a") == []


def test_training_that_is_never_alike_is_not_judged(tmp_path: Path) -> None:
    with pytest.raises(HarnessFailedError, match="other weights each time"):
        differences(tmp_path, b"a", b"b", b"c")
