"""LoRAs that are not the same in every layer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from saver_conformance.cases.adapter_kinds.lora import LORA
from saver_conformance.cases.adapter_kinds.lora import settings as lora_settings

if TYPE_CHECKING:
    from saver_conformance.cases.case import Adapter
    from saver_conformance.cases.family import Family


def ranks(adapter: Adapter, family: Family) -> dict[str, Any]:
    """A LoRA of another rank and scale in its first layer."""
    first = adapter.targets[0]
    patterns = {"rank_pattern": {first: adapter.r + 2}, "alpha_pattern": {first: 3}}
    return {**lora_settings(adapter, family), **patterns}


def one_layer(adapter: Adapter, family: Family) -> dict[str, Any]:
    """A LoRA on the last of two layers."""
    return {**lora_settings(adapter, family), "layers_to_transform": [1]}


RANK_PATTERN = replace(
    LORA,
    name="rank_pattern",
    place=4,
    text="a LoRA with another rank and scale for one of its modules",
    settings=ranks,
    pairs=False,
)
LAYERS = replace(
    LORA,
    name="layers_to_transform",
    place=5,
    text="a LoRA on the second layer only",
    settings=one_layer,
    pairs=False,
)
