"""Every kind of adapter under every engine that shards, and merged adapters."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import (
    IA3Config,
    LoraConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    get_peft_model,
)
from tests.helpers import models, worlds
from tests.helpers.engines import layers, wrap
from tests.helpers.versions import PEFT_SAVES_BIASES_OF_LORA_ONLY
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from canonical_saver import RequestError, WeightsError, save_model, save_trained_model

SHARDED = ("fsdp1", "fsdp2", "zero3")
WEIGHTS = "adapter_model.safetensors"


def lora(**options: Any) -> Any:
    config = LoraConfig(**{"target_modules": ["q_proj", "down_proj"], "r": 3} | options)
    return get_peft_model(models.llama(biases=True), config)


def experts() -> Any:
    targets = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    config = LoraConfig(r=2, target_modules=["q_proj"], target_parameters=targets)
    return get_peft_model(models.mixtral(), config)


def several() -> Any:
    model = lora()
    model.add_adapter("second", LoraConfig(target_modules=["v_proj"], r=2))
    return model


def learned(config: Any) -> Any:
    return get_peft_model(models.llama(), config)


KINDS: dict[str, Callable[[], Any]] = {
    "lora": lora,
    "rslora": lambda: lora(use_rslora=True),
    "dora": lambda: lora(use_dora=True),
    "bias-all": lambda: lora(bias="all"),
    "bias-lora-only": lambda: lora(bias="lora_only"),
    "modules": lambda: lora(modules_to_save=["lm_head", "embed_tokens"]),
    "tokens": lambda: lora(trainable_token_indices=[1, 5]),
    "embedding": lambda: lora(target_modules=["q_proj", "embed_tokens"]),
    "experts": experts,
    "several": several,
    "ia3": lambda: learned(IA3Config(target_modules=["down_proj"], feedforward_modules=[])),
    "prompt": lambda: learned(PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")),
    "encoder": lambda: learned(
        PromptEncoderConfig(num_virtual_tokens=3, encoder_hidden_size=8, task_type="CAUSAL_LM")
    ),
}

# What ReLoRA trains; DoRA and experts are merged by other rules of PEFT.
MERGED = ("lora", "dora", "modules", "tokens", "experts")


def make(kind: str) -> Any:
    """Make an adapter whose every trained tensor has values of its own."""
    torch.manual_seed(0)
    model = KINDS[kind]()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape))
    return model


def adapters(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in models.contents(folder).items() if name.endswith(WEIGHTS)}


def save_adapters(rank: int, folder: str) -> None:
    for engine in SHARDED:
        for kind in KINDS:
            model = wrap(engine, make(kind))
            save_model(model, f"{folder}/{engine}/{kind}", verify="full")


def test_sharded(tmp_path: Path) -> None:
    worlds.run(2, save_adapters, str(tmp_path))
    for kind in KINDS:
        if kind == "bias-lora-only" and not PEFT_SAVES_BIASES_OF_LORA_ONLY:
            save_model(make(kind), tmp_path / "golden")
        else:
            make(kind).save_pretrained(tmp_path / "golden")
        expected = adapters(tmp_path / "golden")
        assert (len(expected) > 1) == (kind == "several")
        for engine in SHARDED:
            assert adapters(tmp_path / engine / kind) == expected, (engine, kind)
        for path in (tmp_path / "golden").rglob(WEIGHTS):
            path.unlink()


def save_wrapped(rank: int, folder: str) -> None:
    """Wrap layers and model in all that training puts around them, and hand over the base."""
    for engine in SHARDED:
        for compiled in ("no", "whole", "layers"):
            model = make("modules")
            base = model.get_base_model()
            blocks = base.model.layers
            blocks[0] = checkpoint_wrapper(blocks[0])
            if compiled == "layers":
                blocks[1] = torch.compile(blocks[1])
            outer = wrap(engine, torch.compile(model) if compiled == "whole" else model)
            trainer = SimpleNamespace(model=model, model_wrapped=outer)
            handed = {"wrapped": outer, "base": base}
            for name, module in handed.items():
                cfg = {"output_dir": f"{folder}/{engine}-{compiled}-{name}"}
                save_trained_model(cfg, trainer, module)


def test_wrapped_and_handed_over(tmp_path: Path) -> None:
    worlds.run(2, save_wrapped, str(tmp_path / "m"))
    make("modules").save_pretrained(tmp_path / "golden")
    expected = adapters(tmp_path / "golden")
    folders = list((tmp_path / "m").iterdir())
    assert len(folders) == 18
    for folder in folders:
        assert adapters(folder) == expected, folder
        assert not (folder / "config.json").exists()


def save_merged(rank: int, folder: str) -> None:
    for engine in ("ddp", *SHARDED):
        for kind in MERGED:
            model = wrap(engine, make(kind))
            cfg = {"output_dir": f"{folder}/{engine}/{kind}", "relora": True}
            options = {"save_verify": "full", "save_portable": False}
            save_trained_model(cfg | options, None, model)
            assert layers(model)
    model = wrap("fsdp2", make("encoder"))
    with pytest.raises(WeightsError, match="relora: expected an adapter that can be merged"):
        save_trained_model({"output_dir": f"{folder}/x", "relora": True}, None, model)
    model = wrap("fsdp2", make("lora"))
    cfg = {"output_dir": f"{folder}/x", "relora": True, "save_format": "dcp"}
    with pytest.raises(RequestError, match="save as safetensors"):
        save_trained_model(cfg, None, model)


def test_merged_when_relora(tmp_path: Path) -> None:
    worlds.run(2, save_merged, str(tmp_path))
    for kind in MERGED:
        model = make(kind)
        cfg = {"output_dir": str(tmp_path / "one" / kind), "relora": True}
        save_trained_model(cfg | {"save_portable": False}, None, model)
        copy.deepcopy(model).merge_and_unload().save_pretrained(tmp_path / "golden" / kind)
        expected = models.contents(tmp_path / "golden" / kind)
        for engine in ("one", "ddp", *SHARDED):
            assert models.contents(tmp_path / engine / kind) == expected, (engine, kind)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("in_config", [False, True])
@pytest.mark.parametrize("kind", ["tokens", "embedding", "modules", "lora"])
def test_tied_weights_are_merged_once(kind: str, in_config: bool, tmp_path: Path) -> None:
    options = {
        "tokens": {"trainable_token_indices": [1, 5]},
        "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
        "modules": {"modules_to_save": ["lm_head"]},
        "lora": {},
    }[kind]
    base: Any = models.llama(tied=in_config)
    base.lm_head.weight = base.model.embed_tokens.weight
    model = get_peft_model(base, LoraConfig(**{"target_modules": ["q_proj"]} | options))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(1)
    golden = copy.deepcopy(model).merge_and_unload()
    save_trained_model({"output_dir": str(tmp_path), "relora": True}, None, model)
    loaded = type(base).from_pretrained(tmp_path)
    assert loaded.state_dict().keys() == golden.state_dict().keys()
    for name, tensor in golden.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_quantized_is_not_merged(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="the base is quantized by bitsandbytes")
    from transformers import BitsAndBytesConfig

    models.llama().save_pretrained(tmp_path / "base")
    base: Any = type(models.llama()).from_pretrained(
        tmp_path / "base", quantization_config=BitsAndBytesConfig(load_in_4bit=True)
    )
    model = get_peft_model(base, LoraConfig(target_modules=["q_proj"]))
    save_trained_model({"output_dir": str(tmp_path / "m"), "relora": True}, None, model)
    assert "adapter_config.json" in models.contents(tmp_path / "m")
    assert json.loads((tmp_path / "m" / "adapter_config.json").read_text())["peft_type"] == "LORA"
