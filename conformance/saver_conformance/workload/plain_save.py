"""A plain save of what a case trained, and what is right about it, for readers to be compared with.

Both are made of the training's own snapshot, in a process that has seen neither the saver nor its
folder. What is right: token ids and prompt of the training's tokenizer object, and the scores of
the trained weights in float32.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from saver_conformance.cases.case import Case
from saver_conformance.folder import portability
from saver_conformance.folder.layout import CONFIG, TOKENIZER_CONFIG
from saver_conformance.observation.observation import Expectation, Tensor
from saver_conformance.observation.reading import ASKED, BASE, PLAIN, RIGHT
from saver_conformance.workload import expectation, models, training
from saver_conformance.workload.oracle import to_torch


def write(case: Case, folder: Path) -> None:
    """Write a plain save of what ``case`` trained, its base and what is right into ``folder``."""
    expected = expectation.read(folder)
    memory = expectation.read_tensors(folder / expectation.MEMORY_FILE)
    asked = json.loads((folder / ASKED).read_text())
    tokenizer = models.make_processing(case)
    model = _model(case, folder, expected, memory)
    model.save_pretrained(folder / PLAIN)
    tokenizer.save_pretrained(folder / PLAIN)
    size = model.config.vocab_size
    prompts = [[number % size for number in numbers] for numbers in asked["numbers"]]
    right: dict[str, Any] = {
        "tokens": [_encode(tokenizer, text) for text in asked["texts"]],
        "scores": _scores(model.float().eval(), prompts),
    }
    if tokenizer.chat_template:
        right["chat"] = tokenizer.apply_chat_template(
            asked["messages"], tokenize=False, add_generation_prompt=True
        )
        right["chat_scores"] = _scores(model, [_encode(tokenizer, right["chat"])])[0]
    (folder / RIGHT).write_text(json.dumps(right))


def _model(case: Case, folder: Path, expected: Expectation, memory: Mapping[str, Tensor]) -> Any:
    values = {name: to_torch(tensor) for name, tensor in memory.items()}
    if case.adapter is None:
        dtype = torch.float32 if case.dtype == "float32" else torch.bfloat16
        model = models.auto_class(case.family).from_config(
            models.make_config(case), dtype=dtype, experts_implementation="eager"
        )
        tied = {name: values[first] for name, first in expected.tied.items()}
        model.load_state_dict({**values, **tied})
        if case.family.generates:
            model.generation_config.update(**models.GENERATION)
        return model
    base = models.load_base(case, models.base_folder(case, folder))
    base.save_pretrained(folder / BASE)
    models.make_processing(case).save_pretrained(folder / BASE)
    _add_older_names(folder / BASE)
    model = training.add_adapters(base, case)
    unexpected = model.load_state_dict(values, strict=False).unexpected_keys
    if unexpected:
        raise RuntimeError(f"the snapshot has tensors that the model lacks: {unexpected}")
    return model


def _add_older_names(base: Path) -> None:
    """Make a base readable for all that read published ones.

    Without, readers that take another base could tell nothing of the adapter.
    """
    config = json.loads((base / CONFIG).read_text())
    for setting in (*portability.missing_dtype(config), *portability.missing_experts(config)):
        config[setting.name] = setting.value
    rope = dict(config.get("rope_parameters") or {})
    if "rope_theta" in rope:
        config["rope_theta"] = rope.pop("rope_theta")
        scaled = rope.get("rope_type", "default") != "default"
        config |= {"rope_scaling": rope} if scaled else {}
    (base / CONFIG).write_text(json.dumps(config))
    tokenizer = json.loads((base / TOKENIZER_CONFIG).read_text())
    if tokenizer.get("tokenizer_class") == portability.NEW_CLASS:
        tokenizer["tokenizer_class"] = portability.OLD_CLASS
    (base / TOKENIZER_CONFIG).write_text(json.dumps(tokenizer))


def _encode(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _scores(model: Any, prompts: Sequence[Sequence[int]]) -> list[list[float]]:
    """Logits after each prompt."""
    with torch.no_grad():
        return [
            model(input_ids=torch.tensor([list(prompt)]), use_cache=False).logits[0, -1].tolist()
            for prompt in prompts
        ]
