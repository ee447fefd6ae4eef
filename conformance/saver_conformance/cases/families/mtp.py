"""A model whose checkpoint has a layer for further tokens (MTP), which its class does not load."""

from __future__ import annotations

from typing import Any

from saver_conformance.cases.families.llama import LLAMA
from saver_conformance.cases.families.llama import settings as llama_settings
from saver_conformance.cases.family import Family, Sizing

_LAYER = "mtp.layers.0"


def settings(size: Sizing) -> dict[str, Any]:
    """A Llama's, and the claim of a layer that it does not have in memory."""
    return {**llama_settings(size), "num_nextn_predict_layers": 1}


def ignored(size: Sizing) -> dict[str, tuple[int, ...]]:
    """What joins the next token's embedding to the last state, and a norm."""
    return {
        "mtp.fc.weight": (size.hidden, 2 * size.hidden),
        f"{_LAYER}.input_layernorm.weight": (size.hidden,),
        f"{_LAYER}.mlp.down_proj.weight": (size.hidden, size.intermediate),
    }


MTP = Family(
    name="mtp",
    place=23,
    text="its configuration claims a layer for further tokens that only the base's folder holds",
    model_type=LLAMA.model_type,
    class_name=LLAMA.class_name,
    layers=LLAMA.layers,
    attention=LLAMA.attention,
    linear=LLAMA.linear,
    settings=settings,
    ignored=ignored,
)
