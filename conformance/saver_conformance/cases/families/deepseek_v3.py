"""DeepSeek-V3: latent attention, and experts in groups with shared ones next to them."""

from __future__ import annotations

from typing import Any

from saver_conformance.cases.families.llama import settings as llama_settings
from saver_conformance.cases.families.qwen3_moe import QWEN3_MOE
from saver_conformance.cases.family import Family, Sizing


def settings(size: Sizing) -> dict[str, Any]:
    """A dense layer, and one of experts; it needs groups of experts of one size."""
    return {
        **llama_settings(size),
        "num_key_value_heads": size.heads,
        "moe_intermediate_size": 16 if size.packed else 9 if size.odd else 12,
        "n_routed_experts": 6 if size.odd else 4,
        "n_group": 2,
        "topk_group": 1,
        "num_experts_per_tok": 2,
        "first_k_dense_replace": 1,
        "routed_scaling_factor": 1.5,
        "q_lora_rank": 8,
        "kv_lora_rank": 8,
        "qk_rope_head_dim": 4,
        "qk_nope_head_dim": 4,
        "v_head_dim": 8,
    }


DEEPSEEK_V3 = Family(
    name="deepseek_v3",
    place=17,
    text="latent attention, groups of experts, and a buffer that corrects their scores",
    model_type="deepseek_v3",
    class_name="DeepseekV3ForCausalLM",
    layers=("DeepseekV3DecoderLayer",),
    attention=("q_b_proj", "kv_b_proj"),
    linear=("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"),
    settings=settings,
    experts=QWEN3_MOE.experts,
    conversions=QWEN3_MOE.conversions,
)
