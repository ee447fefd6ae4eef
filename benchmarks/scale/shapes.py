"""Published models, by the numbers in their configurations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM, LlamaConfig, LlamaForCausalLM

from benchmarks.models import DTYPE


def _dense(hidden: int, inner: int, layers: int, heads: int) -> Any:
    config = LlamaConfig(
        vocab_size=128_256,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=8,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config)


def _mixture(vocabulary: int, heads: int, experts: int, groups: int, dense: int) -> Any:
    config = DeepseekV3Config(
        vocab_size=vocabulary,
        hidden_size=7168,
        intermediate_size=18_432,
        moe_intermediate_size=2048,
        num_hidden_layers=61,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        n_routed_experts=experts,
        n_shared_experts=1,
        num_experts_per_tok=8,
        n_group=groups,
        topk_group=min(groups, 4),
        first_k_dense_replace=dense,
        q_lora_rank=1536,
        kv_lora_rank=512,
        qk_rope_head_dim=64,
        qk_nope_head_dim=128,
        v_head_dim=128,
    )
    return DeepseekV3ForCausalLM(config)


_MODELS: dict[str, Callable[[], Any]] = {
    "Llama 3.1 8B": lambda: _dense(4096, 14_336, 32, 32),
    "Llama 3.1 70B": lambda: _dense(8192, 28_672, 80, 64),
    "Llama 3.1 405B": lambda: _dense(16_384, 53_248, 126, 128),
    "DeepSeek V3 671B": lambda: _mixture(129_280, 128, 256, 8, 3),
    "Kimi K2 1T": lambda: _mixture(163_840, 64, 384, 1, 1),
}
NAMES = tuple(_MODELS)


def build(name: str) -> Any:
    """Make a model on the meta device."""
    with torch.device("meta"):
        return _MODELS[name]().to(DTYPE)
