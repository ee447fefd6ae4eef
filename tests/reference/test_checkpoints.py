"""Checkpoints of a trainer: whole or not there, and rotated without harm to anything else."""

from __future__ import annotations

import json
import logging
import shutil
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.helpers import models
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from canonical_saver import WriteError, checkpoints
from canonical_saver.callback import CanonicalSaveCallback, save_at_checkpoints
from canonical_saver.checkpoints import STAGING, make_checkpoints_whole, surplus

STEPS, BEST = 4, 1


class Rows(Dataset[dict[str, torch.Tensor]]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        tokens = torch.full((4,), index)
        return {"input_ids": tokens, "labels": tokens}


def trainer_in(folder: Path, *, lora: bool = False, **more: Any) -> Trainer:
    """A trainer that keeps two of four checkpoints, of which the first is the best."""
    torch.manual_seed(0)
    arguments = TrainingArguments(
        str(folder),
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        per_device_train_batch_size=2,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        max_steps=STEPS,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="score",
        greater_is_better=True,
        **more,
    )
    trainer = Trainer(
        model=models.peft() if lora else models.llama(),
        args=arguments,
        train_dataset=Rows(),
        eval_dataset=Rows(),
        compute_metrics=lambda _: {"score": -float(trainer.state.global_step)},
    )
    return trainer


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


class Dies(TrainerCallback):  # type: ignore[misc]
    """Raises in the middle of the save of one step's checkpoint."""

    def __init__(self, trainer: Trainer, step: int) -> None:
        save = trainer._save_rng_state

        def save_or_die(folder: str) -> None:
            if trainer.state.global_step == step:
                raise OSError("No space left on device")
            save(folder)

        trainer._save_rng_state = save_or_die


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    for name in ("checkpoint-1-good", "checkpoint-notes"):
        (folder / name).mkdir()
        (folder / name / "mine").touch()
    trainer = trainer_in(folder)
    save_at_checkpoints({"save_checksums": True}, trainer, trainer.model)
    trainer.train()
    return folder


def test_save_at_checkpoints_keeps_the_best_the_newest_and_what_is_no_checkpoint(
    trained: Path,
) -> None:
    kept = [f"checkpoint-{BEST}", f"checkpoint-{STEPS}", "checkpoint-1-good", "checkpoint-notes"]
    assert names(trained) == sorted(kept)
    assert (trained / "checkpoint-1-good/mine").exists()


def test_save_at_checkpoints_saves_the_model_with_the_options_of_the_configuration(
    trained: Path,
) -> None:
    found = {path.name for path in (trained / f"checkpoint-{STEPS}/canonical/model").iterdir()}
    assert {"model.safetensors", "config.json", "SHA256SUMS"} <= found


def test_save_at_checkpoints_leaves_the_end_of_training_to_its_caller(trained: Path) -> None:
    assert not (trained / "model.safetensors").exists()


def test_a_checkpoint_names_the_best_one_by_the_place_where_it_is(trained: Path) -> None:
    for step in (BEST, STEPS):
        state = json.loads((trained / f"checkpoint-{step}/trainer_state.json").read_text())
        assert state["best_model_checkpoint"] == str(trained / f"checkpoint-{BEST}")


def test_a_resumed_training_replaces_the_checkpoints_of_the_one_before(
    trained: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    stale = run / f"checkpoint-{STEPS}" / "of the training before"
    stale.touch()
    trainer = trainer_in(run)
    make_checkpoints_whole(trainer)
    trainer.train(resume_from_checkpoint=str(run / f"checkpoint-{BEST}"))
    assert f"checkpoint-{STEPS}" in names(run)
    assert not stale.exists()


def test_a_checkpoint_that_fails_is_not_found(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path)
    make_checkpoints_whole(trainer)
    Dies(trainer, 3)
    with pytest.raises(OSError, match="No space"):
        trainer.train()
    assert get_last_checkpoint(str(tmp_path)) == str(tmp_path / "checkpoint-2")
    assert names(tmp_path) == ["checkpoint-1", "checkpoint-2"]


def test_what_a_killed_save_left_is_cleared_and_what_it_replaced_comes_back(
    tmp_path: Path,
) -> None:
    staging = tmp_path / STAGING
    for name in ("checkpoint-9", "checkpoint-9-replaced", "checkpoint-7-removed"):
        (staging / name).mkdir(parents=True)
    (staging / "checkpoint-9-replaced" / "whole").touch()
    trainer = trainer_in(tmp_path)
    make_checkpoints_whole(trainer)
    trainer.train()
    assert names(tmp_path) == ["checkpoint-1", "checkpoint-4", "checkpoint-9"]
    assert (tmp_path / "checkpoint-9/whole").exists()


def test_a_canonical_save_that_fails_costs_no_checkpoint(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path)

    def fails(checkpoint: Path) -> None:
        raise WriteError("no place for it")

    make_checkpoints_whole(trainer, fails)
    with pytest.raises(WriteError, match="no place for it"):
        trainer.train()
    assert get_last_checkpoint(str(tmp_path)) == str(tmp_path / "checkpoint-1")
    assert (tmp_path / "checkpoint-1" / "model.safetensors").is_file()
    assert (tmp_path / "checkpoint-1" / "trainer_state.json").is_file()


@pytest.mark.parametrize("kind", [FileNotFoundError, PermissionError])
def test_publish_that_cannot_rename_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[OSError]
) -> None:
    staged, final = tmp_path / STAGING / "checkpoint-1", tmp_path / "checkpoint-1"
    for folder, text in ((staged, "new"), (final, "old")):
        folder.mkdir(parents=True)
        (folder / "weights").write_text(text)
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path == staged:
            raise kind(str(path))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with nullcontext() if kind is FileNotFoundError else pytest.raises(kind):
        checkpoints._publish(staged, final)
    assert (final / "weights").read_text() == "old"


def test_something_else_in_the_place_of_a_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-2").write_text("mine")
    trainer = trainer_in(tmp_path)
    make_checkpoints_whole(trainer)
    with pytest.raises(WriteError, match="checkpoint-2"):
        trainer.train()
    assert (tmp_path / "checkpoint-2").read_text() == "mine"


def test_an_adapter_resumes_as_the_one_adapter_that_it_is(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path, lora=True)
    trainer.add_callback(CanonicalSaveCallback(trainer, at_checkpoints=True))
    trainer.train()
    again = trainer_in(tmp_path, lora=True)
    again.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{BEST}"))
    assert list(again.model.peft_config) == ["default"]


def test_make_checkpoints_whole_twice_is_once(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path)
    assert make_checkpoints_whole(trainer)
    first = trainer._save_checkpoint
    assert make_checkpoints_whole(trainer)
    assert trainer._save_checkpoint is first


def test_make_checkpoints_whole_leaves_uploads_and_other_trainers_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def save(model: Any, trial: Any) -> None: ...

    args = SimpleNamespace(push_to_hub=True)
    uploading = SimpleNamespace(args=args, _save_checkpoint=save, _get_output_dir=str)
    with caplog.at_level(logging.WARNING, "canonical_saver"):
        assert not make_checkpoints_whole(uploading)
        assert not make_checkpoints_whole(SimpleNamespace(args=args))
    assert uploading._save_checkpoint is save
    assert "push_to_hub" in caplog.messages[0]
    assert "expected a transformers.Trainer" in caplog.messages[1]


@pytest.mark.parametrize(
    ("there", "limit", "newest", "best", "gone"),
    [
        ([1, 2], 2, 2, 1, []),
        ([1, 2, 3], 2, 3, 2, [1]),
        ([1, 2, 3], 2, 3, 1, [2]),
        ([1, 2, 3], 1, 3, None, [1, 2]),
        ([1, 2, 3], 1, 3, 1, [2]),
        ([1, 2, 900], 2, 2, None, []),
        ([1, 2, 3, 900], 1, 3, 900, [1, 2]),
        ([10, 9, 8], 2, 10, None, [8]),
    ],
)
def test_surplus_is_the_oldest_beyond_the_limit(
    there: list[int], limit: int, newest: int, best: int | None, gone: list[int]
) -> None:
    assert surplus(there, limit, newest, best) == gone
