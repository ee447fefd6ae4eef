"""A model whose code lies in its folder, and is run by those who trust it."""

from __future__ import annotations

from typing import Any

from saver_conformance.cases.families.llama import LLAMA
from saver_conformance.cases.families.llama import settings as llama_settings
from saver_conformance.cases.family import ONLY_TRANSFORMERS, Family, Sizing
from saver_conformance.cases.limit import Limit


def settings(size: Sizing) -> dict[str, Any]:
    """A Llama's, and one that only the code in the folder knows."""
    return {**llama_settings(size), "gate_scale": 1.75}


REMOTE_CODE = Family(
    name="remote-code",
    place=22,
    text="a model whose code lies in its own folder, named by `auto_map`",
    model_type="gated",
    class_name="GatedForCausalLM",
    layers=LLAMA.layers,
    attention=LLAMA.attention,
    linear=(*LLAMA.linear, "gate"),
    settings=settings,
    code={
        "AutoConfig": "modeling_gated.GatedConfig",
        "AutoModelForCausalLM": "modeling_gated.GatedForCausalLM",
    },
    limits=(
        ONLY_TRANSFORMERS,
        Limit(
            "`auto_map` names the class that the code in the folder defines",
            unless={"class_name": ("",)},
        ),
    ),
)
