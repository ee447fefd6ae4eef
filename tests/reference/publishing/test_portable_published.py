"""Settings that published checkpoints have and the class of transformers 5 has no name for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fixtures.portable.save import SIZES
from transformers import AutoConfig, AutoModelForCausalLM

from canonical_saver import save_model
from canonical_saver.publishing.portable import _complete_config, config_keys

SLIDING, FULL, LINEAR = "sliding_attention", "full_attention", "linear_attention"
SMALL = {**SIZES, "head_dim": 32}


def completed(tmp_path: Any, model_type: str, **settings: Any) -> dict[str, Any]:
    """What is added to a configuration."""
    config = AutoConfig.for_model(model_type, **{**SMALL, **settings})
    plain = config.to_dict()
    path = tmp_path / "config.json"
    path.write_text("")
    list(_complete_config(path, plain, type(config), ["model.norm.weight"]))
    found = dict(AutoConfig.for_model(model_type).from_json_file(path).to_dict())
    return {key: value for key, value in found.items() if key not in plain}


def test_mixture_of_qwen3_that_never_slides_says_so_for_mistral_rs(tmp_path: Any) -> None:
    assert completed(tmp_path, "qwen3_moe")["max_window_layers"] == 2


def test_mixture_of_qwen3_that_slides_does_so_from_the_first_layer(tmp_path: Any) -> None:
    added = completed(tmp_path, "qwen3_moe", use_sliding_window=True, sliding_window=4)
    assert added["max_window_layers"] == 0


@pytest.mark.parametrize(
    ("kinds", "interval"),
    [
        ([SLIDING, FULL], 2),
        ([SLIDING, SLIDING, FULL, SLIDING], 3),
        ([FULL, FULL], 1),
        ([SLIDING, SLIDING], None),
        ([FULL, SLIDING], None),
        ([SLIDING, FULL, FULL], None),
    ],
)
@pytest.mark.parametrize("model_type", ["gemma3_text", "cohere2"])
def test_interval_of_full_attention_is_added_where_the_class_knows_it(
    model_type: str, kinds: list[str], interval: int | None, tmp_path: Any
) -> None:
    added = completed(tmp_path, model_type, layer_types=kinds, num_hidden_layers=len(kinds))
    assert added.get("sliding_window_pattern") == interval


def test_interval_of_full_attention_of_linear_layers_has_its_own_name(tmp_path: Any) -> None:
    kinds = [LINEAR, LINEAR, FULL]
    added = completed(tmp_path, "qwen3_next", layer_types=kinds, num_hidden_layers=3)
    assert added["full_attention_interval"] == 3


def test_interval_is_not_added_to_a_class_that_never_knew_it(tmp_path: Any) -> None:
    kinds = [SLIDING, FULL]
    assert "sliding_window_pattern" not in completed(tmp_path, "gpt_oss", layer_types=kinds)


def test_candidates_leave_a_class_of_the_model_s_own_alone() -> None:
    config = {"model_type": "deepseek_v3"}
    assert {one.spellings[0].name for one in config_keys.candidates(config)} == {
        "scoring_func",
        "topk_method",
    }
    assert list(config_keys.candidates(config | {"auto_map": {"AutoConfig": "own.Own"}})) == []


ROPE = {"rope_theta": 5e5}
GLM = {**SIZES, "n_routed_experts": 2, "n_group": 1, "num_experts_per_tok": 1}
GPT_OSS = {**SIZES, "num_local_experts": 2, "num_experts_per_tok": 1, "head_dim": 32}


@pytest.mark.parametrize(("kind", "is_null"), [("default", True), ("linear", False)])
@pytest.mark.parametrize(
    ("model_type", "sizes", "rope"),
    [
        ("glm4_moe", GLM, {**ROPE, "partial_rotary_factor": 0.5}),
        ("gpt_oss", GPT_OSS, ROPE),
        ("apertus", SIZES, ROPE),
    ],
)
def test_config_says_that_positions_are_not_scaled_where_a_reader_has_no_such_default(
    *,
    model_type: str,
    sizes: dict[str, Any],
    rope: dict[str, Any],
    kind: str,
    is_null: bool,
    tmp_path: Path,
) -> None:
    """mlx-lm has no default for the first; transformers 4 scales the positions of the others."""
    rope = {"rope_type": kind, **rope} | ({} if is_null else {"factor": 2.0})
    config = AutoConfig.for_model(model_type, **sizes, rope_parameters=rope)
    save_model(AutoModelForCausalLM.from_config(config), tmp_path)
    found = json.loads((tmp_path / "config.json").read_text())
    assert "rope_scaling" in found
    assert (found["rope_scaling"] is None) is is_null
    read = AutoConfig.from_pretrained(tmp_path)
    assert read.rope_parameters == config.rope_parameters
