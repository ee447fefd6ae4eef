"""Mixtral: experts that memory holds fused, and files one by one."""

from __future__ import annotations

from typing import Any

from saver_conformance.cases.families.llama import LINEAR
from saver_conformance.cases.families.llama import settings as llama_settings
from saver_conformance.cases.family import Family, Rename, Sizing, SplitExperts


def settings(size: Sizing) -> dict[str, Any]:
    """Two layers of experts."""
    experts = {"num_local_experts": size.experts, "num_experts_per_tok": 2}
    return {**llama_settings(size), **experts}


MIXTRAL = Family(
    name="mixtral",
    place=3,
    text="a mixture of experts: transformers fuses them in memory, and converts the names and "
    "shapes when it saves",
    model_type="mixtral",
    class_name="MixtralForCausalLM",
    layers=("MixtralDecoderLayer",),
    attention=("q_proj", "v_proj"),
    linear=LINEAR[:4],
    settings=settings,
    experts=("experts.gate_up_proj", "experts.down_proj"),
    conversions=(
        # In memory [E, 2I, H] (gate, then up) and [E, H, I].
        SplitExperts(".experts.gate_up_proj", ("w1.weight", "w3.weight")),
        SplitExperts(".experts.down_proj", ("w2.weight",)),
        Rename(r"\.mlp\.", ".block_sparse_moe."),
    ),
    pairs=True,
)
