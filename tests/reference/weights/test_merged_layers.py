"""Tensors of the base that are saved with an adapter while it is merged into them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tests.helpers import models, tuners
from transformers import LlamaForCausalLM

from canonical_saver import WeightsError, save_model


def adapted(folder: Path, **options: Any) -> Any:
    models.llama(biases=True).save_pretrained(folder)
    config = LoraConfig(**{"target_modules": ["q_proj"], "r": 3} | options)
    return get_peft_model(LlamaForCausalLM.from_pretrained(folder), config)


def with_trained_weight(folder: Path) -> Any:
    model = adapted(folder)
    model.get_base_model().model.layers[1].self_attn.q_proj.base_layer.requires_grad_(True)
    return model


def with_targeted_embeddings(folder: Path) -> Any:
    return adapted(folder, target_modules=["embed_tokens", "q_proj"])


def with_bias_of_lora(folder: Path) -> Any:
    return adapted(folder, bias="all", lora_bias=True)


@pytest.mark.parametrize(
    "make",
    [with_trained_weight, with_targeted_embeddings, with_bias_of_lora],
    ids=lambda make: make.__name__,
)
def test_save_model_of_a_merged_tensor_is_refused_until_it_is_unmerged(
    make: Any, tmp_path: Path
) -> None:
    model = tuners.filled(make(tmp_path / "base")).eval()
    model.merge_adapter()
    with pytest.raises(WeightsError, match=r"base_layer.*unmerge_adapter"):
        save_model(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    model.unmerge_adapter()
    save_model(model, tmp_path / "out")


def test_save_model_of_merged_layers_with_plain_biases_reloads_equal(tmp_path: Path) -> None:
    model = tuners.filled(adapted(tmp_path / "base", bias="all")).eval()
    tokens = torch.arange(6)[None]
    with torch.no_grad():
        wanted = model(input_ids=tokens).logits
        model.merge_adapter()
        save_model(model, tmp_path / "out")
        base = LlamaForCausalLM.from_pretrained(tmp_path / "base")
        found = PeftModel.from_pretrained(base, tmp_path / "out").eval()(input_ids=tokens).logits
    assert torch.equal(found, wanted)
