"""What a configuration says under several names, and what it claims."""

from __future__ import annotations

from typing import Any

import pytest

from saver_conformance.folder.portability import (
    claims,
    disagreements,
    has_claimed_layers,
    missing_dtype,
    missing_experts,
    missing_rope,
    unknown_to_older_tokenizers,
)

ROPE = {"rope_type": "default", "rope_theta": 500_000.0}
YARN = {"rope_type": "yarn", "rope_theta": 500_000.0, "factor": 4.0}
KINDS = {"full_attention": ROPE, "sliding_attention": {**ROPE, "rope_theta": 10_000.0}}


def names(settings: Any) -> list[str]:
    return [setting.name for setting in settings]


@pytest.mark.parametrize(
    ("config", "missing"),
    [
        ({"rope_parameters": ROPE}, ["rope_theta"]),
        ({"rope_parameters": ROPE, "rope_theta": 500_000.0}, []),
        ({"rope_parameters": YARN, "rope_theta": 500_000.0}, ["rope_scaling"]),
        ({"rope_parameters": YARN, "rope_theta": 5e5, "rope_scaling": YARN}, []),
        ({"rope_parameters": KINDS}, ["rope_theta"]),
        ({"rope_parameters": KINDS, "global_rope_theta": 500_000.0}, []),
        ({"text_config": {"rope_parameters": ROPE}}, ["text_config.rope_theta"]),
        ({"rope_theta": 500_000.0}, []),
        ({"rope_parameters": None}, []),
        ({"rope_parameters": [1]}, []),
        ({}, []),
    ],
)
def test_rope_settings_that_older_readers_miss(config: dict[str, Any], missing: list[str]) -> None:
    assert names(missing_rope(config)) == missing


@pytest.mark.parametrize(
    "config",
    [
        {"rope_parameters": ROPE, "rope_theta": 10_000.0},
        {"rope_parameters": KINDS, "rope_theta": 10_000.0},
        {"rope_parameters": YARN, "rope_scaling": {"rope_type": "yarn", "factor": 8.0}},
        {"rope_parameters": YARN, "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
        {"dtype": "float32", "torch_dtype": "bfloat16"},
        {"num_experts": 4, "num_local_experts": 8},
        {"text_config": {"rope_parameters": ROPE, "rope_theta": 10_000.0}},
    ],
)
def test_two_values_of_one_setting_disagree(config: dict[str, Any]) -> None:
    assert len(list(disagreements(config))) == 1


@pytest.mark.parametrize(
    "config",
    [
        {"rope_parameters": ROPE, "rope_theta": 500_000},
        {"rope_parameters": KINDS, "rope_theta": 500_000.0, "rope_local_base_freq": 10_000.0},
        {"rope_parameters": YARN, "rope_scaling": {"type": "yarn", "factor": 4}},
        {"rope_parameters": YARN, "rope_scaling": None, "rope_theta": 500_000.0},
        {"dtype": "torch.bfloat16", "torch_dtype": "bfloat16"},
        {"dtype": "bfloat16", "text_config": {"dtype": "float32"}},
        {"num_experts": 4, "num_local_experts": 4},
        {"rope_parameters": {}, "rope_theta": 500_000.0},
    ],
)
def test_one_value_under_two_names_agrees(config: dict[str, Any]) -> None:
    assert list(disagreements(config)) == []


def test_dtype_and_experts_under_one_name_are_missing_under_the_other() -> None:
    assert names(missing_dtype({"dtype": "float32"})) == ["torch_dtype"]
    assert names(missing_dtype({"torch_dtype": "float32"})) == ["dtype"]
    assert names(missing_dtype({"torch_dtype": "float32", "dtype": "float32"})) == []
    assert names(missing_dtype({})) == []
    moe = {"model_type": "qwen3_moe", "num_local_experts": 4}
    assert names(missing_experts(moe)) == ["num_experts"]
    assert names(missing_experts({**moe, "num_experts": 4})) == []
    assert names(missing_experts({**moe, "model_type": "mixtral"})) == []


def test_spellings_that_older_tokenizers_refuse() -> None:
    old = {"tokenizer_class": "PreTrainedTokenizerFast", "additional_special_tokens": ["<a>"]}
    assert list(unknown_to_older_tokenizers(old)) == []
    new = {"tokenizer_class": "TokenizersBackend", "extra_special_tokens": ["<a>"]}
    assert len(list(unknown_to_older_tokenizers(new))) == 2
    assert list(unknown_to_older_tokenizers({"extra_special_tokens": {"image": "<i>"}})) == []


@pytest.mark.parametrize(
    "config",
    [
        {"num_nextn_predict_layers": 1, "num_hidden_layers": 2},
        {"text_config": {"mtp_num_hidden_layers": 1, "num_hidden_layers": 2}},
        {"num_mtp_layers": 1, "num_hidden_layers": 2},
    ],
)
def test_claimed_layers_have_tensors_or_not(config: dict[str, Any]) -> None:
    assert len(list(claims(config))) == 1
    assert not has_claimed_layers(config, ["model.layers.1.mlp.up_proj.weight"])
    assert has_claimed_layers(config, ["model.layers.2.eh_proj.weight"])
    assert has_claimed_layers(config, ["mtp.fc.weight"])


def test_nothing_is_claimed_by_zero_or_by_other_settings() -> None:
    assert list(claims({"num_nextn_predict_layers": 0, "mtp_loss_factor": 1})) == []
    assert list(claims({"num_nextn_predict_layers": True, "num_hidden_layers": 2})) == []
