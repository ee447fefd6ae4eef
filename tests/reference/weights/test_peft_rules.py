"""Every kind of adapter that PEFT has: the tensors and configuration of its own save."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AdaptionPromptConfig, LoraConfig, PeftModel
from safetensors.torch import load_file
from tests.helpers import models, tuners, worlds
from tests.helpers.engines import wrap

from canonical_saver import SaveError, save_model
from canonical_saver.versions import PEFT_KINDS_KNOW_THEIR_TENSORS

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
KINDS = [kind for kind in tuners.kinds() if kind not in tuners.NEEDS_MORE]
ALL = [*KINDS, *tuners.VARIANTS]
# Kinds whose rules do more than pick parameters; the others are alike under each engine.
COMPUTED = frozenset(
    {
        "CPT",
        "LORA",
        "MULTITASK_PROMPT_TUNING",
        "OSF",
        "P_TUNING",
        "SHIRA",
        "VERA",
        "adalora_rank_pattern",
        "adalora_rank_zero",
        "lora_experts",
        "prefix_projection",
        "vblora_topk",
    }
)
# torch cannot shard a parameter by FSDP2 that several layers share.
SHARED = frozenset({"LILY", "TINYLORA", "UNILORA", "VBLORA", "vblora_topk"})


def make(name: str) -> Any:
    return tuners.VARIANTS[name]() if name in tuners.VARIANTS else tuners.adapted(name)


def settings(folder: Path) -> dict[str, Any]:
    """An adapter's configuration; PEFT writes sets of names in no order."""
    values: dict[str, Any] = json.loads((folder / CONFIG).read_text())
    for key, value in values.items():
        if isinstance(value, list) and all(isinstance(one, str) for one in value):
            values[key] = sorted(value)
    values["base_model_name_or_path"] = values["base_model_name_or_path"] or None  # "" by old PEFT
    return values


def state_of(model: Any) -> dict[str, Any]:
    configs = {name: copy.deepcopy(vars(one)) for name, one in model.peft_config.items()}
    return configs | {n: t.clone() for n, t in model.state_dict().items()}


@pytest.mark.parametrize("name", ALL)
def test_save_model_any_kind_writes_what_peft_writes(name: str, tmp_path: Path) -> None:
    make(name).save_pretrained(tmp_path / "golden")
    model = make(name)
    before = state_of(model)
    save_model(model, tmp_path / "m", verify="full")
    assert (tmp_path / "m" / WEIGHTS).read_bytes() == (tmp_path / "golden" / WEIGHTS).read_bytes()
    assert settings(tmp_path / "m") == settings(tmp_path / "golden")
    after = state_of(model)
    assert before.keys() == after.keys()
    for key, value in before.items():
        same = torch.equal(value, after[key]) if isinstance(value, torch.Tensor) else None
        assert same if same is not None else value == after[key], key


def save_all(rank: int, folder: str, engine: str, names: list[str]) -> None:
    for name in names:
        save_model(wrap(engine, make(name)), f"{folder}/{engine}/{name}", verify="full")


@pytest.mark.parametrize("engine", ["fsdp1", "fsdp2", "zero3"])
def test_save_model_any_kind_sharded_writes_what_peft_writes(engine: str, tmp_path: Path) -> None:
    names = [n for n in ALL if engine == "zero3" or (n in COMPUTED and n not in SHARED)]
    worlds.run(2, save_all, str(tmp_path), engine, names)
    for name in names:
        make(name).save_pretrained(tmp_path / "golden" / name)
        golden = (tmp_path / "golden" / name / WEIGHTS).read_bytes()
        assert (tmp_path / engine / name / WEIGHTS).read_bytes() == golden, name
        assert settings(tmp_path / engine / name) == settings(tmp_path / "golden" / name), name


@pytest.mark.parametrize("name", ["adalora_rank_pattern", "vblora_topk", "CPT", "SHIRA"])
def test_save_model_computed_tensors_reload_equal_to_pefts(name: str, tmp_path: Path) -> None:
    make(name).save_pretrained(tmp_path / "golden")
    save_model(make(name), tmp_path / "m")
    expected = PeftModel.from_pretrained(models.llama(), tmp_path / "golden")
    found = PeftModel.from_pretrained(models.llama(), tmp_path / "m")
    assert found.state_dict().keys() == expected.state_dict().keys()
    for key, value in expected.state_dict().items():
        assert torch.equal(found.state_dict()[key], value), key


@pytest.mark.parametrize("trained", [False, True])
def test_save_model_xlora_reloads_equal(trained: bool, tmp_path: Path) -> None:
    """PEFT writes no classifier: its tensors are taken for those of an adapter named 0."""
    if not PEFT_KINDS_KNOW_THEIR_TENSORS.is_there:
        pytest.skip("PEFT before 0.21 loses the classifier in a function of its own")
    model = tuners.mixture(tmp_path / "experts", use_trainable_adapters=trained)
    save_model(model, tmp_path / "m")
    assert not (tmp_path / "m" / "0").exists()
    base = models.llama()
    base.config.use_cache = False
    torch.manual_seed(7)
    loaded = PeftModel.from_pretrained(base, tmp_path / "m")
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key


def test_save_model_adaption_prompt_that_is_not_active_is_saved(tmp_path: Path) -> None:
    model = tuners.adapted("ADAPTION_PROMPT")
    second = AdaptionPromptConfig(task_type="CAUSAL_LM", adapter_len=3, adapter_layers=2)
    model.add_adapter("second", second)
    model.set_adapter("second")
    tuners.filled(model)
    for name in ("default", "second"):  # PEFT before 0.21 saves the active one in the other's place
        model.set_adapter(name)
        model.save_pretrained(tmp_path / "golden", selected_adapters=[name])
    save_model(model, tmp_path / "m")
    for folder in (".", "second"):
        found = (tmp_path / "m" / folder / WEIGHTS).read_bytes()
        assert found == (tmp_path / "golden" / folder / WEIGHTS).read_bytes(), folder


def test_save_model_rules_that_fail_are_named_before_the_first_byte(tmp_path: Path) -> None:
    model = tuners.allocated({"model.layers.7.self_attn.q_proj.lora_E": [True] * 4})
    with pytest.raises(SaveError, match=r"'default' \(ADALORA\).*KeyError"):
        save_model(model, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_save_model_adapter_inside_another_kind_is_named_as_if_alone(tmp_path: Path) -> None:
    from peft import LoHaConfig, PeftMixedModel, get_peft_model

    config = LoraConfig(target_modules=["q_proj"], r=3)
    model: Any = get_peft_model(models.llama(), config, mixed=True)
    model.add_adapter("other", LoHaConfig(target_modules=["q_proj", "v_proj"], r=2))
    model.set_adapter(["default", "other"])
    tuners.filled(model)
    save_model(model, tmp_path)
    assert not any("base_layer" in name for name in load_file(tmp_path / WEIGHTS))
    first: Any = PeftMixedModel.from_pretrained(models.llama(), tmp_path)
    first.load_adapter(tmp_path / "other", "other")
    for key, value in model.state_dict().items():
        assert torch.equal(first.state_dict()[key], value), key
    # In the other order, the layers lie in each other the other way around.
    second: Any = PeftMixedModel.from_pretrained(models.llama(), tmp_path / "other", "other")
    second.load_adapter(tmp_path, "default")
    expected = {n.replace("base_layer.", ""): p for n, p in model.named_parameters()}
    for name, loaded in second.named_parameters():
        if "hada" in name or "lora" in name:
            alone = name.replace("base_layer.", "")
            assert torch.equal(loaded, expected[alone]), name
