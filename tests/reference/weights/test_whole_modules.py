"""Modules that are trained whole, where an adapter's rules take more of them than belongs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from tests.helpers.versions import PEFT_SAVES_BIASES_OF_LORA_ONLY
from transformers import BertConfig, BertForTokenClassification

from canonical_saver import save_model


def base(folder: Path) -> Any:
    config = BertConfig(
        vocab_size=32,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        num_labels=3,
    )
    if not folder.exists():
        BertForTokenClassification(config).save_pretrained(folder)
    return BertForTokenClassification.from_pretrained(folder)


@pytest.mark.parametrize("bias", ["all", "lora_only", "none"])
def test_save_model_biases_of_a_whole_module_are_saved_once(bias: Any, tmp_path: Path) -> None:
    """PEFT's rule for biases adds those of the frozen head, and those of its copy a second time."""
    config = LoraConfig(r=2, target_modules=["query"], bias=bias, task_type="TOKEN_CLS")
    model: Any = get_peft_model(base(tmp_path / "base"), config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_()
    save_model(model, tmp_path / "adapter")
    model.save_pretrained(tmp_path / "peft")
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    of_peft = load_file(tmp_path / "peft" / "adapter_model.safetensors")
    assert [name for name in saved if "classifier" in name] == [
        "base_model.model.classifier.bias",
        "base_model.model.classifier.weight",
    ]
    if bias == "lora_only" and not PEFT_SAVES_BIASES_OF_LORA_ONLY:
        of_peft |= {n: t for n, t in saved.items() if n.endswith(".base_layer.bias")}
    assert all(torch.equal(tensor, of_peft[name]) for name, tensor in saved.items())
    loaded: Any = PeftModel.from_pretrained(base(tmp_path / "base"), str(tmp_path / "adapter"))
    tokens = torch.arange(5)[None]
    with torch.no_grad():
        assert torch.equal(
            loaded.eval()(input_ids=tokens).logits, model.eval()(input_ids=tokens).logits
        )
