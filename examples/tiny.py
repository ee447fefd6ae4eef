"""What the examples train: a model made in code, so that they need no download."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from transformers import LlamaConfig, LlamaForCausalLM


def model() -> LlamaForCausalLM:
    """Make the model, the same on every rank."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 67, "hidden_size": 32, "intermediate_size": 64}
    heads = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    return LlamaForCausalLM(LlamaConfig(**sizes, **heads))


def batches(device: torch.device) -> Iterator[torch.Tensor]:
    """Yield token numbers, shape ``[batch, length]``."""
    for _ in range(2):
        yield torch.randint(67, (2, 8), device=device)
