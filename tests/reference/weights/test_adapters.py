"""Adapters: all that PEFT would reload, under PEFT's names, whatever wraps the model."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import (
    IA3Config,
    LoraConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    get_peft_model,
)
from safetensors.torch import load_file
from tests.helpers import models
from torch import nn

from canonical_saver import save_model, save_trained_model
from canonical_saver.errors import WeightsError
from canonical_saver.versions import PEFT_KINDS_KNOW_THEIR_TENSORS

KINDS: dict[str, Any] = {
    "lora": LoraConfig(target_modules=["q_proj"], use_rslora=True),
    "dora": LoraConfig(target_modules=["q_proj"], use_dora=True, bias="lora_only"),
    "modules": LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head", "embed_tokens"]),
    "tokens": LoraConfig(target_modules=["q_proj"], trainable_token_indices=[1, 5]),
    "embedding": LoraConfig(target_modules=["q_proj", "embed_tokens"]),
    "ia3": IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]),
    "prompt": PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
    "prefix": PrefixTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
    "encoder": PromptEncoderConfig(
        num_virtual_tokens=3, encoder_hidden_size=8, task_type="CAUSAL_LM"
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_names_and_bytes_of_peft(kind: str, tmp_path: Path) -> None:
    model: Any = get_peft_model(models.llama(), copy.deepcopy(KINDS[kind]))
    model.save_pretrained(tmp_path / "golden")
    save_model(model, tmp_path / "m", verify="full")
    name = "adapter_model.safetensors"
    assert (tmp_path / "m" / name).read_bytes() == (tmp_path / "golden" / name).read_bytes()
    found = json.loads((tmp_path / "m" / "adapter_config.json").read_text())
    expected = json.loads((tmp_path / "golden" / "adapter_config.json").read_text())
    for values in (found, expected):
        for key in ("target_modules", "feedforward_modules"):
            values[key] = sorted(values.get(key) or [])
        values["base_model_name_or_path"] = (
            values["base_model_name_or_path"] or None
        )  # "" by old PEFT
    assert found == expected


def test_experts(tmp_path: Path) -> None:
    config = LoraConfig(r=2, target_parameters=["mlp.experts.gate_up_proj"])
    model: Any = get_peft_model(models.mixtral(), config)
    model.save_pretrained(tmp_path / "golden")
    save_model(model, tmp_path / "m")
    name = "adapter_model.safetensors"
    assert (tmp_path / "m" / name).read_bytes() == (tmp_path / "golden" / name).read_bytes()


def test_named_adapters(tmp_path: Path) -> None:
    model: Any = get_peft_model(models.llama(), LoraConfig(target_modules=["q_proj"]))
    model.add_adapter("second", LoraConfig(target_modules=["v_proj"], r=2))
    save_model(model, tmp_path)
    loaded = PeftModel.from_pretrained(models.llama(), tmp_path / "second")
    assert {n for n in load_file(tmp_path / "second" / "adapter_model.safetensors")} == {
        n.replace(".default", "") for n, _ in loaded.named_parameters() if "lora_" in n
    }
    assert all("q_proj" in n for n in load_file(tmp_path / "adapter_model.safetensors"))


class Adversarial(nn.Module):
    """Modules with the names that blind string operations remove."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Sequential(nn.Linear(4, 4))
        self.default = nn.Linear(4, 4)
        self.lora_head = nn.Linear(4, 4)
        self._orig_mod = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._orig_mod(self.lora_head(self.default(self.module(x))))


def test_adversarial_names(tmp_path: Path) -> None:
    save_model(Adversarial(), tmp_path / "full")
    found = load_file(tmp_path / "full" / "model.safetensors")
    assert found.keys() == Adversarial().state_dict().keys()
    config = LoraConfig(target_modules=["module.0", "default"])
    model: Any = get_peft_model(Adversarial(), config)
    if not PEFT_KINDS_KNOW_THEIR_TENSORS.is_there:  # it trains lora_head, and does not load it
        with pytest.raises(WeightsError, match="lora_head"):
            save_model(model, tmp_path / "lora")
        return
    save_model(model, tmp_path / "lora")
    names = set(load_file(tmp_path / "lora" / "adapter_model.safetensors"))
    assert names == {
        f"base_model.model.{path}.lora_{side}.weight"
        for path in ("module.0", "default")
        for side in "AB"
    }


@pytest.mark.parametrize("name", ["self_attn", "q_proj", "layers", "lora_A", "weight", "model"])
def test_an_adapter_named_like_a_module(name: str, tmp_path: Path) -> None:
    def adapted(adapter: str) -> Any:
        torch.manual_seed(0)
        config = LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"])
        return get_peft_model(models.llama(), config, adapter_name=adapter)

    save_model(adapted("default"), tmp_path / "expected")
    save_model(adapted(name), tmp_path / "m")
    file = "adapter_model.safetensors"
    found = (tmp_path / "m" / name / file).read_bytes()
    assert found == (tmp_path / "expected" / file).read_bytes()


def test_checkpointed_and_compiled(tmp_path: Path) -> None:
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    model = models.peft(modules_to_save=["lm_head"])
    save_model(model, tmp_path / "plain")
    layers = model.get_base_model().model.layers
    layers[0] = checkpoint_wrapper(layers[0])
    layers[1] = torch.compile(layers[1])
    save_model(torch.compile(model), tmp_path / "wrapped")
    name = "adapter_model.safetensors"
    assert (tmp_path / "wrapped" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()


def test_base_handed_over_instead_of_the_adapter(tmp_path: Path) -> None:
    model = models.peft()
    trainer = SimpleNamespace(model=model)
    save_trained_model({"output_dir": str(tmp_path)}, trainer, model.get_base_model())
    assert (tmp_path / "adapter_model.safetensors").exists()
    assert not (tmp_path / "config.json").exists()


def test_grown_vocabulary(tmp_path: Path) -> None:
    base: Any = models.llama()
    base.save_pretrained(tmp_path / "base")
    base = type(base).from_pretrained(tmp_path / "base")
    base.resize_token_embeddings(71)
    model: Any = get_peft_model(base, LoraConfig(target_modules=["q_proj"]))
    save_model(model, tmp_path / "m")
    found = load_file(tmp_path / "m" / "adapter_model.safetensors")
    assert found["base_model.model.model.embed_tokens.weight"].shape == (71, 32)
    assert found["base_model.model.lm_head.weight"].shape == (71, 32)


def test_merged_when_relora(tmp_path: Path) -> None:
    model = models.peft()
    cfg = {"output_dir": str(tmp_path), "relora": True, "adapter": "lora"}
    save_trained_model(cfg, None, model)
    found = load_file(tmp_path / "model.safetensors")
    merged = copy.deepcopy(model).merge_and_unload().state_dict()
    assert found.keys() == merged.keys()
    assert all(torch.equal(found[key], merged[key]) for key in merged)
    assert isinstance(model, PeftModel)
    assert not (tmp_path / "adapter_config.json").exists()


def test_callback(tmp_path: Path) -> None:
    from canonical_saver.callback import CanonicalSaveCallback

    model = models.peft()
    args = SimpleNamespace(output_dir=str(tmp_path), process_index=0)
    callback = CanonicalSaveCallback(at_checkpoints=True)
    callback.on_save(args, SimpleNamespace(global_step=3), None, model=model)
    callback.on_train_end(args, None, None, model=model)
    name = "adapter_model.safetensors"
    inner = tmp_path / "checkpoint-3" / "canonical/model" / name
    assert inner.read_bytes() == (tmp_path / name).read_bytes()
