"""What lies in the output folder before the save."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from saver_conformance.case import Case

STRANGERS = {
    "checkpoint-1/model.safetensors": "weights of a checkpoint",
    "checkpoint-1/trainer_state.json": "{}",
    "runs/events.log": "a training log",
    "notes.txt": "kept by the user",
}
"""Files that no saver may touch, with their text."""


def occupy(case: Case, output: Path, base: Path) -> None:
    """Fill ``output`` as ``case.occupied`` says; an empty one is not created.

    Earlier saves are of the same architecture with other weights, and a chat template of their own.
    """
    if case.occupied == "empty":
        return
    if case.occupied == "strangers":
        for name, text in STRANGERS.items():
            path = output / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return
    kept = base.with_name(f"{base.name}-{case.occupied}")
    if not kept.exists():
        _earlier_save(case, kept, base)
    shutil.copytree(kept, output)


def _earlier_save(case: Case, output: Path, base: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    if case.occupied == "adapter":
        adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["o_proj"]))
        adapted.save_pretrained(output)
    else:
        limit = "5KB" if case.occupied == "sharded" else "5GB"
        model.save_pretrained(output, max_shard_size=limit)
    (output / "chat_template.jinja").write_text("an earlier template")
    (output / "additional_chat_templates").mkdir()
    (output / "additional_chat_templates" / "tools.jinja").write_text("an earlier tool template")
