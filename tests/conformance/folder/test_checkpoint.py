"""Checkpoints by their names, and what is wrong with the model in one."""

from __future__ import annotations

from pathlib import Path

import pytest

from saver_conformance.folder.checkpoint import checkpoints_in, fault_of_model, step_of
from saver_conformance.folder.safetensors import write
from saver_conformance.observation.observation import Tensor

RIGHT = {"a": Tensor("F32", (2,), b"12345678"), "b": Tensor("F32", (1,), b"1234")}


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("checkpoint-12", 12),
        ("checkpoint-12-good", None),
        ("my-checkpoint-12", None),
        ("checkpoint-", None),
        ("checkpoint-extra", None),
    ],
)
def test_step_of_takes_the_whole_name(name: str, step: int | None) -> None:
    assert step_of(name) == step


def test_checkpoints_in_are_folders_in_the_order_of_their_steps(tmp_path: Path) -> None:
    for name in ("checkpoint-10", "checkpoint-9", "checkpoint-9-mine"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-11").touch()
    assert list(checkpoints_in(tmp_path)) == [9, 10]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write(tmp_path / "model-00001-of-00002.safetensors", {"a": RIGHT["a"]})
    write(tmp_path / "model-00002-of-00002.safetensors", {"b": RIGHT["b"]})
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def test_fault_of_model_of_a_whole_one_is_empty(model: Path) -> None:
    (model / "optimizer.pt").write_bytes(b"of no concern")
    assert fault_of_model(model, RIGHT) == ""


def test_fault_of_model_names_a_missing_tensor(model: Path) -> None:
    (model / "model-00002-of-00002.safetensors").unlink()
    assert fault_of_model(model, RIGHT).startswith("b: expected F32[1], found nothing")


def test_fault_of_model_names_other_bits(model: Path) -> None:
    write(model / "model-00002-of-00002.safetensors", {"b": Tensor("F32", (1,), b"1235")})
    assert fault_of_model(model, RIGHT).startswith("b: expected")


def test_fault_of_model_names_a_file_that_is_cut_off(model: Path) -> None:
    path = model / "model-00001-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    assert path.name in fault_of_model(model, RIGHT)


@pytest.mark.parametrize("text", ["", "{"])
def test_fault_of_model_names_a_configuration_that_is_cut_off(model: Path, text: str) -> None:
    (model / "config.json").write_text(text)
    assert "config.json" in fault_of_model(model, RIGHT)


def test_fault_of_model_misses_a_configuration(model: Path) -> None:
    (model / "config.json").unlink()
    assert fault_of_model(model, RIGHT) == "no configuration of the model"


def test_fault_of_model_without_a_folder(tmp_path: Path) -> None:
    assert fault_of_model(tmp_path / "none", RIGHT) == "no folder of the model"
