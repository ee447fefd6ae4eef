"""Phi-3: projections that are fused in memory and in files."""

from __future__ import annotations

from saver_conformance.cases.families.llama import settings
from saver_conformance.cases.family import Family

PHI3 = Family(
    name="phi3",
    place=4,
    text="its projections are fused in memory and on disk",
    model_type="phi3",
    class_name="Phi3ForCausalLM",
    layers=("Phi3DecoderLayer",),
    attention=("qkv_proj",),
    linear=("qkv_proj", "o_proj", "gate_up_proj", "down_proj"),
    settings=settings,
    pairs=True,
)
