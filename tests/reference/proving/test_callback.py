"""`ProveCallback` beside a Trainer that saves by itself."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.helpers import models
from transformers import Trainer, TrainingArguments

from canonical_saver import ProofError, ProveCallback, save_model


def trainer_of(model: Any, folder: Path) -> Trainer:
    rows = [{"input_ids": torch.tensor([1, 2, 3]), "labels": torch.tensor([1, 2, 3])}] * 4
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=4,
        save_steps=2,
        per_device_train_batch_size=1,
        learning_rate=0.1,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )
    return Trainer(model=model, args=arguments, train_dataset=rows)


@pytest.mark.parametrize("make", [models.llama, models.peft])
def test_callback_proves_each_checkpoint_of_a_trainer(make: Any, tmp_path: Path) -> None:
    trainer = trainer_of(make(), tmp_path)
    callback = ProveCallback(trainer, strict=True)
    trainer.add_callback(callback)
    trainer.train()
    assert [folder.name for folder in callback.proofs] == ["checkpoint-2", "checkpoint-4"]
    assert all(proof.ok for proof in callback.proofs.values())
    trainer.save_model()
    proof = callback.prove(tmp_path)
    assert proof is not None
    assert proof.ok
    with pytest.raises(ProofError, match="save the model again"):
        callback.prove(tmp_path / "checkpoint-2")


def test_callback_logs_what_is_not_the_model(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_model(models.llama(seed=1), tmp_path / "checkpoint-3")
    arguments = SimpleNamespace(output_dir=str(tmp_path))
    state = SimpleNamespace(global_step=3)
    callback = ProveCallback()
    model = models.llama()
    with caplog.at_level(logging.INFO, logger="canonical_saver"):
        callback.on_save(arguments, state, None, model=model)
        callback.on_train_end(arguments, state, None, model=model)
        save_model(model, tmp_path)
        callback.on_train_end(arguments, state, None, model=model)
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1
    assert "checkpoint-3 is not the model in memory" in errors[0]
    assert [proof.ok for proof in callback.proofs.values()] == [False, True]
    with pytest.raises(ProofError):
        ProveCallback(strict=True).on_save(arguments, state, None, model=model)


def test_callback_leaves_an_earlier_training_alone(tmp_path: Path) -> None:
    save_model(models.llama(seed=1), tmp_path)
    arguments = SimpleNamespace(output_dir=str(tmp_path))
    callback = ProveCallback(strict=True)
    callback.on_train_begin(arguments, None, None)
    callback.on_train_end(arguments, None, None, model=models.llama())
    assert not callback.proofs, "the trained model is saved after the end"
    save_model(models.llama(), tmp_path)
    callback.on_train_end(arguments, None, None, model=models.llama())
    assert callback.proofs[tmp_path].ok


def test_callback_without_strict_never_ends_a_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    callback = ProveCallback()
    assert callback.prove(tmp_path / "none", models.llama()) is None
    save_model(models.llama(), tmp_path / "m")
    with torch.device("meta"):
        empty = models.llama()
    assert callback.prove(tmp_path / "m", empty) is None
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 2
