"""Tiny models with odd sizes, made in code, the same on every rank."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
)

SIZES: dict[str, Any] = {
    "vocab_size": 67,
    "hidden_size": 32,
    "intermediate_size": 37,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def llama(*, tied: bool = False, biases: bool = False, seed: int = 0) -> PreTrainedModel:
    torch.manual_seed(seed)
    config = LlamaConfig(**SIZES, tie_word_embeddings=tied, attention_bias=biases, mlp_bias=biases)
    return LlamaForCausalLM(config)


def mixtral(seed: int = 0) -> PreTrainedModel:
    torch.manual_seed(seed)
    return MixtralForCausalLM(MixtralConfig(**SIZES, num_local_experts=2))


def turned() -> PreTrainedModel:
    """Has weights that are transposed for the hub, so that no rank holds their form in the file."""
    from transformers.core_model_loading import Transpose, WeightConverter

    model: Any = llama()
    model._weight_conversions = [
        WeightConverter("q_turned.weight", "q_proj.weight", [Transpose(0, 1)]),
        WeightConverter("down_turned.weight", "down_proj.weight", [Transpose(0, 1)]),
    ]
    return model


def peft(*, seed: int = 0, **options: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    config = LoraConfig(
        **{"r": 3, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"} | options
    )
    model = get_peft_model(llama(), config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder and its subfolders by their relative paths."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
