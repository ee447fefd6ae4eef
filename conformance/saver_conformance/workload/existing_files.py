"""What lies in the output folder before the save."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from saver_conformance.cases.case import Case
from saver_conformance.folder.layout import PROCESSORS
from saver_conformance.workload.models import auto_class, trust

STRANGERS = {
    "checkpoint-1/model.safetensors": "weights of a checkpoint",
    "checkpoint-1/trainer_state.json": "{}",
    "runs/events.log": "a training log",
    "notes.txt": "kept by the user",
}
"""Files that no saver may touch, with their text."""

PROCESSOR = {"image_processor_type": "CLIPImageProcessor"}
"""What a configuration of a processor says that the user has put into the folder."""

READ_ONLY = 0o444
"""Permission bits of all files of a write-protected folder."""


def occupy(case: Case, output: Path, base: Path) -> None:
    """Fill ``output`` with what ``case`` says; a folder without content is not created.

    Earlier saves of the same model have other weights, and a chat template of their own.
    """
    if case.saves_over_base:
        shutil.copytree(base, output)
        return
    if case.existing_save != "empty":
        kept = base.with_name(f"{base.name}-{case.existing_save}")
        if not kept.exists():
            save = _other_save if case.existing_save == "another" else _earlier_save
            save(case, kept, base)
        shutil.copytree(kept, output)
    if case.foreign_files == "none":
        return
    if case.foreign_files == "processor":
        output.mkdir(exist_ok=True)
        for name in PROCESSORS:
            (output / name).write_text(json.dumps(PROCESSOR))
        return
    for name, text in STRANGERS.items():
        path = output / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    if case.foreign_files == "readonly":
        for path in output.rglob("*"):
            if path.is_file():
                path.chmod(READ_ONLY)


def _earlier_save(case: Case, output: Path, base: Path) -> None:
    model = auto_class(case.family).from_pretrained(base, **trust(case.family))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.add_(1)
    if case.existing_save == "adapter":
        # Of layers that a small adapter leaves alone, so that what stays of it is seen.
        own = [name for name in case.family.linear if name not in case.family.attention]
        adapted = get_peft_model(model, LoraConfig(r=2, target_modules=own[-1:]))
        adapted.save_pretrained(output)
    else:
        limit = "5KB" if case.existing_save == "sharded" else "5GB"
        model.save_pretrained(output, max_shard_size=limit)
    _write_templates(output)


def _other_save(case: Case, output: Path, base: Path) -> None:
    """Another architecture's save by an older library: pickled shards, files of a slow tokenizer.

    They are there to be replaced or removed; nothing ever unpickles them.
    """
    config = AutoConfig.for_model(
        "gpt2", n_embd=16, n_layer=1, n_head=2, n_positions=32, vocab_size=24
    )
    state = AutoModelForCausalLM.from_config(config).state_dict()
    output.mkdir()
    shards = [f"pytorch_model-{number:05d}-of-00002.bin" for number in (1, 2)]
    weight_map = {name: shards[index % 2] for index, name in enumerate(state)}
    for shard in shards:
        torch.save({n: state[n] for n in state if weight_map[n] == shard}, output / shard)
    texts = {
        "pytorch_model.bin.index.json": {"metadata": {"total_size": 1}, "weight_map": weight_map},
        "added_tokens.json": {"<other>": 24},
        "special_tokens_map.json": {"bos_token": "<other>", "eos_token": "<other>"},
        "vocab.json": {"<other>": 0},
        "generation_config.json": {"max_new_tokens": 3, "eos_token_id": 23},
    }
    for name, content in texts.items():
        (output / name).write_text(json.dumps(content))
    (output / "merges.txt").write_text("#version: 0.2\n")
    config.save_pretrained(output)
    _write_templates(output)


def _write_templates(output: Path) -> None:
    (output / "chat_template.jinja").write_text("an earlier template")
    (output / "additional_chat_templates").mkdir()
    (output / "additional_chat_templates" / "tools.jinja").write_text("an earlier tool template")
