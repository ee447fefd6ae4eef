"""What the examples train: a model made in code, so that they need no download."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast


def model() -> LlamaForCausalLM:
    """Make the model, the same on every rank."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 67, "hidden_size": 32, "intermediate_size": 64}
    heads = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    return LlamaForCausalLM(LlamaConfig(**sizes, **heads))


def tokenizer() -> PreTrainedTokenizerFast:
    """Make a tokenizer of as many tokens as the model has."""
    words = {word: number for number, word in enumerate(["<unk>", "<pad>", *map(str, range(65))])}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", pad_token="<pad>")


def batches(device: torch.device) -> Iterator[torch.Tensor]:
    """Yield token numbers, shape ``[batch, length]``."""
    for _ in range(2):
        yield torch.randint(67, (2, 8), device=device)
