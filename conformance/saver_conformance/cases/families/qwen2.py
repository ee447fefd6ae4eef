"""Qwen2: a decoder with biases."""

from __future__ import annotations

from saver_conformance.cases.families.llama import LINEAR, settings
from saver_conformance.cases.family import Family

QWEN2 = Family(
    name="qwen2",
    place=2,
    text="it has biases in its attention",
    model_type="qwen2",
    class_name="Qwen2ForCausalLM",
    layers=("Qwen2DecoderLayer",),
    attention=("q_proj", "v_proj"),
    linear=LINEAR,
    settings=settings,
    pairs=True,
)
