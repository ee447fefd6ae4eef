"""Qwen3 MoE: experts in a router of their own beside dense layers, and norms in the attention."""

from __future__ import annotations

from typing import Any

from saver_conformance.cases.families.llama import LINEAR
from saver_conformance.cases.families.llama import settings as llama_settings
from saver_conformance.cases.family import Family, Sizing, SplitExperts


def settings(size: Sizing) -> dict[str, Any]:
    """A dense layer, and one of experts."""
    return {
        **llama_settings(size),
        "head_dim": 8,
        "moe_intermediate_size": 16 if size.packed else 9 if size.odd else 12,
        "num_experts": size.experts,
        "num_experts_per_tok": 2,
        "mlp_only_layers": [0],
        "norm_topk_prob": True,
    }


QWEN3_MOE = Family(
    name="qwen3_moe",
    place=10,
    text="a dense layer and one of experts, whose sizes differ; transformers fuses the experts in "
    "memory and splits them on disk",
    model_type="qwen3_moe",
    class_name="Qwen3MoeForCausalLM",
    layers=("Qwen3MoeDecoderLayer",),
    attention=("q_proj", "v_proj"),
    linear=LINEAR[:4],  # PEFT rewrites the others: it adapts fused experts as parameters
    settings=settings,
    experts=("experts.gate_up_proj", "experts.down_proj"),
    conversions=(
        SplitExperts(".experts.gate_up_proj", ("gate_proj.weight", "up_proj.weight")),
        SplitExperts(".experts.down_proj", ("down_proj.weight",)),
    ),
)
