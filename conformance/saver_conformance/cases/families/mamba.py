"""Mamba: a state space instead of attention."""

from __future__ import annotations

from typing import Any

from saver_conformance.cases.family import TOKENS, Family, Sizing
from saver_conformance.cases.limit import Limit


def settings(size: Sizing) -> dict[str, Any]:
    """Two layers."""
    return {
        "vocab_size": size.vocabulary,
        "hidden_size": size.hidden,
        "num_hidden_layers": 2,
        "state_size": 4,
        "conv_kernel": 3,
        "expand": 2,
        "time_step_rank": 8,
        "layer_norm_epsilon": 1e-4,
        "initializer_range": 0.2,
        "residual_in_fp32": False,
        "tie_word_embeddings": False,
        **TOKENS,
    }


MAMBA = Family(
    name="mamba",
    place=19,
    text="a state-space model: convolutions, and matrices that belong to no layer",
    model_type="mamba",
    class_name="MambaForCausalLM",
    layers=("MambaBlock",),
    attention=("x_proj",),
    linear=("x_proj", "in_proj"),
    settings=settings,
    embedding="embeddings",
    limits=(
        Limit(
            "its mixer multiplies by the weight of dt_proj, which is packed to 4 bits "
            "(transformers, modeling_mamba.py)",
            modes="qlora-*",
        ),
        Limit("the model has no embed_tokens", unless={"modules_to_save": ((), ("lm_head",))}),
    ),
)
