"""Adapters in a model without a PeftModel around it, and PEFT models inside of another module."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import AdaLoraConfig, LoraConfig, PeftModel, get_peft_model, inject_adapter_in_model
from safetensors.torch import load_file
from tests.helpers import models, tuners, worlds
from tests.helpers.engines import wrap
from tests.helpers.versions import is_at_least
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.integrations.peft import MIN_PEFT_VERSION

from canonical_saver import SaveError, save_model, save_trained_model

WEIGHTS = "adapter_model.safetensors"
Q = {"target_modules": ["q_proj"], "r": 3}
V = {"target_modules": ["v_proj"], "r": 2}


needs_add_adapter = pytest.mark.skipif(
    not is_at_least("peft", MIN_PEFT_VERSION),
    reason=f"add_adapter of this transformers refuses PEFT before {MIN_PEFT_VERSION}",
)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    models.llama().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def fresh(base: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(base)


def equal_files(found: Path, golden: Path) -> None:
    """All that ``save_pretrained`` writes is there, byte for byte but for the order of sets.

    An adapter is for inference, as PEFT saves one; transformers leaves that out.
    """
    for path in golden.iterdir():
        if path.suffix == ".json":
            values = [json.loads(p.read_text()) for p in (path, found / path.name)]
            for one in values:
                one["target_modules"] = sorted(one.get("target_modules") or [])
            if "inference_mode" in values[0]:
                assert (values[0].pop("inference_mode"), values[1].pop("inference_mode")) == (
                    False,
                    True,
                )
            assert values[0] == values[1], path.name
        else:
            assert (found / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize("name", ["default", "mine"])
@pytest.mark.parametrize("options", [{}, {"modules_to_save": ["lm_head"]}])
@needs_add_adapter
def test_save_model_add_adapter_writes_what_transformers_writes(
    name: str, options: dict[str, Any], base: Path, tmp_path: Path
) -> None:
    model = fresh(base)
    model.add_adapter(LoraConfig(**Q, **options), name)
    tuners.filled(model)
    model.save_pretrained(tmp_path / "golden")
    save_model(model, tmp_path / "m")
    equal_files(tmp_path / "m", tmp_path / "golden")
    assert not (tmp_path / "m" / "config.json").exists()
    if options and not is_at_least("transformers", "5.23"):
        return  # its loader of adapters does not find modules that are trained whole
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    save_model(loaded, tmp_path / "again")
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == (tmp_path / "m" / WEIGHTS).read_bytes()
    renamed = fresh(base)
    renamed.load_adapter(tmp_path / "m", "other")
    save_model(renamed, tmp_path / "third")
    assert (tmp_path / "third" / WEIGHTS).read_bytes() == (tmp_path / "m" / WEIGHTS).read_bytes()


@pytest.mark.parametrize("active", ["default", "second"])
@needs_add_adapter
def test_save_model_several_added_adapters_all_are_saved(
    active: str, base: Path, tmp_path: Path
) -> None:
    """The active one is where transformers puts it, the others in folders of their names."""
    model = fresh(base)
    model.add_adapter(LoraConfig(**Q))
    model.add_adapter(LoraConfig(**V), "second")
    tuners.filled(model)
    model.set_adapter(active)
    save_model(model, tmp_path / "m")
    for name in ("default", "second"):
        model.set_adapter(name)
        model.save_pretrained(tmp_path / name)
        folder = tmp_path / "m" / ("" if name == active else name)
        assert (folder / WEIGHTS).read_bytes() == (tmp_path / name / WEIGHTS).read_bytes()
        loaded = fresh(base)
        loaded.load_adapter(folder, name)
        expected = model.state_dict()
        assert all(torch.equal(v, expected[k]) for k, v in loaded.state_dict().items() if name in k)


def test_save_model_injected_adapter_loads_by_peft(base: Path, tmp_path: Path) -> None:
    model = inject_adapter_in_model(LoraConfig(**Q), fresh(base), "mine")
    tuners.filled(model)
    save_model(model, tmp_path / "m")
    loaded = PeftModel.from_pretrained(fresh(base), tmp_path / "m", adapter_name="mine")
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[f"base_model.model.{key}"], value), key


def test_save_model_adapter_injected_in_a_plain_module_loads_by_peft(tmp_path: Path) -> None:
    def plain() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))

    model = inject_adapter_in_model(LoraConfig(target_modules=["0"], r=2), plain())
    model(torch.randn(8, 4))
    model[2].bias.requires_grad_(True)
    tuners.filled(model)
    (warning,) = save_model(model, tmp_path).warnings
    assert re.search(r"'base_model.model.1.running_mean'.*'.*2.bias'", warning)
    loaded = PeftModel.from_pretrained(plain(), tmp_path)
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[f"base_model.model.{key}"], value), key


@needs_add_adapter
def test_save_model_injected_adalora_with_a_pattern_is_saved(base: Path, tmp_path: Path) -> None:
    """PEFT's rule is a method of its own model, which there is none of here."""
    model = fresh(base)
    model.add_adapter(AdaLoraConfig(**tuners.ADALORA))
    model.peft_config["default"].rank_pattern = dict(tuners.PATTERN)
    save_model(model, tmp_path / "m")
    found = load_file(tmp_path / "m" / WEIGHTS)
    assert found["base_model.model.model.layers.0.self_attn.q_proj.lora_A"].shape == (2, 32)


def save_sharded(rank: int, folder: str) -> None:
    for engine in ("ddp", "fsdp1", "fsdp2", "zero3"):
        model = fresh(Path(folder) / "base")
        model.add_adapter(LoraConfig(**Q))
        tuners.filled(model)
        wrapped = wrap(engine, model)
        save_model(wrapped, f"{folder}/{engine}-wrapped")
        trainer = SimpleNamespace(model=model, model_wrapped=wrapped)
        save_trained_model({"output_dir": f"{folder}/{engine}-inner"}, trainer, model)


@needs_add_adapter
def test_save_model_added_adapter_sharded_writes_what_transformers_writes(
    base: Path, tmp_path: Path
) -> None:
    worlds.run(2, save_sharded, str(tmp_path))
    model = fresh(base)
    model.add_adapter(LoraConfig(**Q))
    tuners.filled(model).save_pretrained(tmp_path / "golden")
    for engine in ("ddp", "fsdp1", "fsdp2", "zero3"):
        for how in ("wrapped", "inner"):
            equal_files(tmp_path / f"{engine}-{how}", tmp_path / "golden")


@needs_add_adapter
def test_save_model_added_adapter_is_merged_when_relora(base: Path, tmp_path: Path) -> None:
    model = fresh(base)
    model.add_adapter(LoraConfig(**Q))
    tuners.filled(model)
    save_trained_model({"output_dir": str(tmp_path / "m"), "relora": True}, None, model)
    found = load_file(tmp_path / "m" / "model.safetensors")
    golden = get_peft_model(fresh(base), LoraConfig(**Q))
    tuners.filled(golden)
    expected = golden.merge_and_unload().state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


class WithHead(nn.Module):
    """A model with a value head, as preference tuning wraps it."""

    def __init__(self, model: Any, *, config: bool) -> None:
        super().__init__()
        self.pretrained_model = model
        self.v_head = nn.Linear(32, 1)
        if config:
            self.config = model.config


def test_save_model_peft_model_in_a_wrapper_with_config_is_refused_by_name(tmp_path: Path) -> None:
    model = WithHead(models.peft(), config=True)
    with pytest.raises(SaveError, match=r"'pretrained_model' inside a WithHead, and v_head"):
        save_model(model, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_save_model_peft_model_in_a_plain_wrapper_loses_nothing(tmp_path: Path) -> None:
    model = WithHead(models.peft(), config=False)
    save_model(model, tmp_path)
    again = WithHead(models.peft(seed=3), config=False)
    again.load_state_dict(load_file(tmp_path / "model.safetensors"))
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


@pytest.mark.parametrize("how", ["inside", pytest.param("deleted", marks=needs_add_adapter)])
def test_save_model_adapters_that_the_model_does_not_know_are_refused(
    how: str, base: Path, tmp_path: Path
) -> None:
    model = fresh(base)
    if how == "inside":
        inject_adapter_in_model(LoraConfig(**Q), model.model)
    else:
        model.add_adapter(LoraConfig(**Q))
        model.delete_adapter("default")
    with pytest.raises(SaveError, match=r"at 'model.layers.0.self_attn.q_proj' in a LlamaFor"):
        save_model(model, tmp_path / "m")
    assert not (tmp_path / "m").exists()
