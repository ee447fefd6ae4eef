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


_OF_BOTH = (
    *NO_LORA,
    Limit("a prompt changes no layers", unless={"targets": ("attention",)}),
    Limit("a prompt merges into no layer", when={"result": ("merged", "relora")}),
    Limit("a prompt is trained alone", unless={"modules_to_save": ((),)}),
    Limit("the base is no part of a model that reads prompts", when={"model_argument": ("base",)}),
    Limit("PEFT asks for a number of attention heads", when={"architecture": ("mamba",)}),
    Limit(
        "accelerate compiles the dictionary of prompts as a region ('OptimizedModule' object is "
        "not subscriptable)",
        modes="*-single,*-ddp,*-tp",
        when={"wrapper": ("regional",)},
    ),
)
PROMPT = AdapterKind(
    name="prompt_tuning",
    place=15,
    text="prompt tuning: embeddings of tokens that no text has, before every text",
    config="PromptTuningConfig",
    peft_type="PROMPT_TUNING",
    settings=settings,
    marks=("prompt_encoder",),
    keys={"prompt_encoder.{}.embedding.weight": "prompt_embeddings"},
    needs="task",
    limits=(
        *_OF_BOTH,
        Limit(
            "PEFT puts tokens before the text and no labels before its own "
            "(PeftModelForTokenClassification, peft/peft_model.py)",
            when={"architecture": ("bert-tokens", "modernbert-tokens")},
        ),
        Limit(
            "prompts get another size than embeddings where the model is of two parts and packed "
            "(mat1 and mat2 shapes cannot be multiplied)",
            modes="qlora-*",
            when={"architecture": ("llava",)},
        ),
        Limit(
            "PEFT reads embeddings of tokens outside of the wrapped forward, where they are a flat "
            "shard ('weight' must be 2-D)",
            modes="qlora-fsdp1-offload",
            when={"architecture": ("modernbert",)},
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
        *_OF_BOTH,
        Limit(
            "transformers drops cached keys and values when it recomputes",
            when={"wrapper": ("checkpointing",)},
        ),
        Limit(
            "FSDP2 expects one dtype in each group (_init_mp_dtypes, "
            "torch/distributed/fsdp/_fully_shard/_fsdp_param_group.py)",
            modes="qlora-fsdp2*",
            when={"dtype": ("mixed",)},
        ),
        Limit(
            "the model takes no cached keys and values (_prefix_tuning_forward, "
            "peft/peft_model.py)",
            when={"architecture": ("modernbert", "modernbert-tokens")},
        ),
        Limit(
            "PEFT makes keys and values of one size for all heads, and latent attention has others "
            "(transformers, modeling_deepseek_v3.py)",
            when={"architecture": ("deepseek_v3",)},
        ),
    ),
)
