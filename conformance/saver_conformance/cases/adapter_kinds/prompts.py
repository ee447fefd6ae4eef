"""Prompt tuning and prefix tuning: nothing of the model is changed, it is given more to read."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from saver_conformance.cases.adapter_kind import NO_LORA, AdapterKind
from saver_conformance.cases.limit import Limit

if TYPE_CHECKING:
    from saver_conformance.cases.case import Adapter
    from saver_conformance.cases.family import Family


def settings(adapter: Adapter, family: Family) -> dict[str, Any]:
    """As many learned tokens as the rank."""
    return {"num_virtual_tokens": adapter.r}


PROMPT = AdapterKind(
    name="prompt_tuning",
    place=15,
    text="prompt tuning: embeddings of tokens that no text has, before every text",
    config="PromptTuningConfig",
    peft_type="PROMPT_TUNING",
    settings=settings,
    marks=("prompt_encoder",),
    keys={"prompt_encoder.{}.embedding.weight": "prompt_embeddings"},
    limits=(
        *NO_LORA,
        Limit("a prompt changes no layers", unless={"targets": ("attention",)}),
        Limit("a prompt merges into no layer", when={"result": ("merged", "relora")}),
        Limit("a prompt is trained alone", unless={"modules_to_save": ((),)}),
        Limit(
            "the base is no part of a model that reads prompts", when={"model_argument": ("base",)}
        ),
    ),
)
PREFIX = replace(
    PROMPT,
    name="prefix_tuning",
    place=16,
    text="prefix tuning: keys and values of tokens that no text has, in every layer",
    config="PrefixTuningConfig",
    peft_type="PREFIX_TUNING",
    limits=(
        *PROMPT.limits,
        Limit(
            "transformers drops cached keys and values when it recomputes",
            when={"wrapper": ("checkpointing",)},
        ),
    ),
)
