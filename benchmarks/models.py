"""Dense models of about a wanted size, with weights that are quickly made."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

DTYPE = torch.bfloat16
VOCABULARY = 32_000


def config(size: int) -> LlamaConfig:
    """A Llama of about ``size`` bytes in bfloat16."""
    hidden = next(h for limit, h in _WIDTHS if size <= limit)
    inner = hidden * 11 // 4
    vocabulary = VOCABULARY if hidden >= 1024 else 2_000
    layer = 2 * (4 * hidden * hidden + 3 * hidden * inner + 2 * hidden)
    layers = max(1, round((size - 4 * vocabulary * hidden) / layer))
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 64,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        dtype=DTYPE,
    )


_WIDTHS = ((20 * 10**6, 256), (5 * 10**8, 1024), (3 * 10**9, 2048), (10**13, 4096))


def empty(wanted: LlamaConfig) -> Any:
    """The model on the meta device."""
    with torch.device("meta"):
        return LlamaForCausalLM(wanted).to(DTYPE)


def fill(tensor: torch.Tensor) -> None:
    """Give a local tensor values that no file system could compress, the same on every rank."""
    flat = tensor.detach().view(-1)
    block = _block().to(flat.dtype)
    for start in range(0, len(flat), len(block)):
        part = flat[start : start + len(block)]
        part.copy_(block[: len(part)])


def materialize(model: nn.Module) -> None:
    """Put a model of plain tensors from the meta device into memory."""
    model.to_empty(device="cpu")
    for tensor in (*model.parameters(), *model.buffers()):
        fill(tensor)


def _block() -> torch.Tensor:
    if not _BLOCKS:
        generator = torch.Generator().manual_seed(0)
        _BLOCKS.append(torch.randn(2**20, generator=generator, dtype=torch.float32).to(DTYPE))
    return _BLOCKS[0]


_BLOCKS: list[torch.Tensor] = []
