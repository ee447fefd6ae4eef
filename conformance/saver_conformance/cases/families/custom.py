"""A model with code of its own, in ``workload/custom_model.py``."""

from __future__ import annotations

from typing import Any

from saver_conformance.cases.families.llama import LINEAR
from saver_conformance.cases.families.llama import settings as llama_settings
from saver_conformance.cases.family import Family, Sizing

LAYERS = (
    "lora_head",
    "default",
    "module",
    "base_model",
    "modules_to_save",
    "_orig_mod",
    "my_fsdp_wrapped_module",
    "my_checkpoint_wrapped_module",
)
"""Its linear layers beside Llama's: named like parts of PEFT and of wrappers."""


def settings(size: Sizing) -> dict[str, Any]:
    """A Llama with more behind it."""
    return {**llama_settings(size), "odd_parameters": size.scalars}


CUSTOM = Family(
    name="custom",
    place=5,
    text="a model with code of its own, with layers named like parts of PEFT and of wrappers "
    "(lora_head, module, _orig_mod), and buffers of unusual shapes",
    model_type="custom",
    class_name="CustomForCausalLM",
    layers=("LlamaDecoderLayer",),
    attention=("q_proj", "v_proj"),
    linear=(*LINEAR, *LAYERS),
    settings=settings,
    module="saver_conformance.workload.custom_model",
    views=True,
    pairs=True,
)
