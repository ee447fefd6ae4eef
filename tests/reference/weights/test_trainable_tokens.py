"""Chosen tokens that are trained, in an embedding that the base on disk does not have."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tests.helpers import models
from transformers import AutoModelForCausalLM

from canonical_saver import save_model


def grown(base: Path, seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base)
    model.resize_token_embeddings(model.config.vocab_size + 3, mean_resizing=False)
    return model


@pytest.mark.parametrize("tied", [False, True])
def test_save_model_chosen_tokens_of_a_resized_embedding_bring_the_embedding(
    tied: bool, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    models.llama(tied=tied).save_pretrained(base)
    config = LoraConfig(
        target_modules=["q_proj"],
        trainable_token_indices={"embed_tokens": [1, 2]},
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(grown(base, seed=1), config)
    save_model(model, tmp_path / "out")
    loaded = PeftModel.from_pretrained(grown(base, seed=2), tmp_path / "out").state_dict()
    expected = model.state_dict()
    assert loaded.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(loaded[name], expected[name])] == []
