"""`prove` alone notices every mutant of the suite that harms bits, names or shapes."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from fixtures.mutants import Mutant, all_mutants
from tests.helpers import models

from canonical_saver import prove, save_model
from saver_conformance.cases.families.custom import LAYERS
from saver_conformance.workload.custom_model import CustomConfig, CustomForCausalLM

HARMED = ("TENSOR-", "ADAPTER-001", "FORMAT-001", "FORMAT-002", "FORMAT-004", "FORMAT-009")
"""Beginnings of the clauses about names, shapes and bits, and about where they lie."""

MODELS = ("llama", "llama-tied", "mixtral", "phi3", "qwen2", "custom")
"""Families on which mutants do harm that these models show too; others have parts of their own."""

MERGE_KEYS = {"merged": {"merge_lora": True}, "relora": {"relora": True}}

MUTANTS = [
    mutant
    for mutant in all_mutants()
    if any(clause.startswith(HARMED) for clause in mutant.breaks)
    and not {"world_size", "disks"} & set(mutant.axes)  # needs ranks to do its harm
    and "setting" not in mutant.axes  # needs a training that has it
    and not mutant.address.startswith("fixtures.mutants.engines:")  # each on an engine of its own
    and mutant.axes.get("kind") != "vera"  # whose matrices the models here do not have
    and not any(clause.startswith("PORTABLE-") for clause in mutant.breaks)  # of other readers
    and mutant.axes.get("architecture", "llama") in MODELS
]


class Cfg(dict[str, Any]):
    """A configuration as savers get it."""

    def __getattr__(self, key: str) -> Any:
        return self.get(key)


def model_for(mutant: Mutant, folder: Path) -> Any:
    """A model on which the mutant does harm, by the axes that it declares."""
    axes = mutant.axes
    torch.manual_seed(0)
    model = base_for(axes)
    if not mutant.modes[0].startswith("full"):
        model = adapted(model, axes, folder)
    if axes.get("dtype") == "bfloat16":
        model = model.bfloat16()
    if axes.get("special_values"):
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    bits = torch.tensor([0x7FC00001, -0x80000000, 1], dtype=torch.int32)
                    parameter.view(-1)[:3] = bits.view(torch.float32)
    return model


def base_for(axes: Any) -> Any:
    if axes.get("architecture") == "custom":
        config = CustomConfig(**models.SIZES, odd_parameters=True, tie_word_embeddings=False)
        model: Any = CustomForCausalLM(config)
        if axes.get("views"):
            model.model.ledger.share_storage()
        return model
    model = models.llama(tied=axes.get("architecture") == "llama-tied")
    if axes.get("tie") == "contrary":  # the configuration says that they are tied
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach() + 1)
    return model


def adapted(model: Any, axes: Any, folder: Path) -> Any:
    from peft import LoraConfig, get_peft_model

    save_model(model, folder / "adapted")
    base: Any = type(model).from_pretrained(folder / "adapted")
    if axes.get("vocabulary") == "resized":
        base.resize_token_embeddings(70)
    more = {"embeddings": ["embed_tokens"], "all": list(LAYERS)}
    targets = ["q_proj", *more.get(axes.get("targets"), [])]
    config = LoraConfig(
        r=3,
        target_modules=targets,
        task_type="CAUSAL_LM",
        use_dora=bool(axes.get("dora")),
        modules_to_save=list(axes.get("modules_to_save") or []) or None,
    )
    model = get_peft_model(base, config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_()
    return model


def test_mutants_that_do_harm_are_many() -> None:
    assert len(MUTANTS) >= 25


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.address.partition(":")[2])
def test_prove_notices_a_mutant(mutant: Mutant, tmp_path: Path) -> None:
    model = model_for(mutant, tmp_path)
    save_model(models.llama(seed=7), tmp_path / "base")
    size = mutant.axes.get("max_shard_size")
    cfg = Cfg(
        output_dir=str(tmp_path / "m"), base_model=str(tmp_path / "base"), max_shard_size=size
    )
    cfg |= MERGE_KEYS.get(mutant.axes.get("result", "trained"), {})
    save_model(model, tmp_path / "m", max_shard_size=size)
    assert prove(model, tmp_path / "m").ok
    module, _, name = mutant.address.partition(":")
    getattr(importlib.import_module(module), name)(cfg, None, model)
    found = prove(model, tmp_path / "m")
    assert not found.ok or found.cast or found.tied_twice, str(found)
