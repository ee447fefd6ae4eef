"""What a Trainer and accelerate save by themselves, on ranks, is proven."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.helpers import models, worlds
from transformers import Trainer, TrainingArguments

from canonical_saver import ProveCallback, prove, save_model

FSDP2: dict[str, Any] = {
    "fsdp": True,
    "fsdp_config": {
        "version": 2,
        "transformer_layer_cls_to_wrap": ["LlamaDecoderLayer"],
        "state_dict_type": "FULL_STATE_DICT",
    },
}
ZERO3: dict[str, Any] = {
    "deepspeed": {
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": {
            "stage": 3,
            "stage3_gather_16bit_weights_on_model_save": True,
            "stage3_param_persistence_threshold": 0,
        },
        "zero_force_ds_cpu_optimizer": False,
    }
}


def train_and_prove(rank: int, engine: dict[str, Any], lora: bool, folder: str) -> dict[str, str]:
    """Train one step, save in each way, and prove it; what is wrong, by the way."""
    from saver_conformance.workload import cpu_patches

    cpu_patches.enable()
    root = Path(folder)
    model = models.peft() if lora else models.llama(biases=True)
    rows = [{"input_ids": torch.tensor([1, 2, 3]), "labels": torch.tensor([1, 2, 3])}] * 6
    arguments = TrainingArguments(
        output_dir=str(root / "trainer"),
        max_steps=1,
        save_steps=1,
        save_only_model=True,
        per_device_train_batch_size=1,
        learning_rate=0.1,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        **engine,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=rows)
    callback = ProveCallback(trainer)
    trainer.add_callback(callback)
    trainer.train()
    trainer.save_model()
    found = {"checkpoint": next(iter(callback.proofs.values()))}
    last = callback.prove(root / "trainer")
    assert last is not None
    found["trainer"] = last
    wrapped = trainer.model_wrapped
    if not lora:
        trainer.accelerator.save_model(wrapped, root / "accelerate")
        found["accelerate"] = prove(wrapped, root / "accelerate")
    save_model(wrapped, root / "reference")
    found["reference"] = prove(wrapped, root / "reference", strict=True)
    return {name: "" if proof.weights_ok else str(proof) for name, proof in found.items()}


@pytest.mark.parametrize(
    ("engine", "size", "lora"),
    [(FSDP2, 2, False), (ZERO3, 3, True)],
    ids=["fsdp2-2", "zero3-3-lora"],
)
def test_prove_what_trainer_and_accelerate_save(
    engine: dict[str, Any], size: int, lora: bool, tmp_path: Path
) -> None:
    first, *others = worlds.run(size, train_and_prove, engine, lora, str(tmp_path))
    assert others == [first] * len(others), "the same on every rank"
    assert not any(first.values()), "\n".join(first.values())
    assert len(first) == (3 if lora else 4)
