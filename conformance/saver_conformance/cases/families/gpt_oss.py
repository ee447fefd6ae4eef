"""gpt-oss: fused experts with biases, interleaved, which stay fused on disk; attention sinks."""

from __future__ import annotations

from typing import Any

from saver_conformance.cases.families.llama import LINEAR
from saver_conformance.cases.families.llama import settings as llama_settings
from saver_conformance.cases.family import Family, Sizing


def settings(size: Sizing) -> dict[str, Any]:
    """A layer with local and one with global attention."""
    return {
        **llama_settings(size),
        "head_dim": 8,
        "num_local_experts": size.experts,
        "num_experts_per_tok": 2,
        "sliding_window": 4,
        "swiglu_limit": 5.0,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 20_000.0,
            "factor": 2.0,
            "beta_fast": 16.0,
            "beta_slow": 2.0,
            "truncate": False,
            "original_max_position_embeddings": 32,
        },
    }


GPT_OSS = Family(
    name="gpt_oss",
    place=16,
    text="experts with biases, fused in memory and on disk, and attention sinks",
    model_type="gpt_oss",
    class_name="GptOssForCausalLM",
    layers=("GptOssDecoderLayer",),
    attention=("q_proj", "v_proj"),
    linear=LINEAR[:4],
    settings=settings,
)
