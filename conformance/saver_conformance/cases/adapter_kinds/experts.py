"""A LoRA on parameters that no linear layer holds: fused experts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from saver_conformance.cases.adapter_kind import ONE_ADAPTER
from saver_conformance.cases.adapter_kinds.lora import LORA
from saver_conformance.cases.adapter_kinds.lora import settings as lora_settings
from saver_conformance.cases.limit import Limit

if TYPE_CHECKING:
    from saver_conformance.cases.case import Adapter
    from saver_conformance.cases.family import Family


def settings(adapter: Adapter, family: Family) -> dict[str, Any]:
    """A LoRA on layers and on fused experts."""
    return {**lora_settings(adapter, family), "target_parameters": list(family.experts)}


EXPERTS = replace(
    LORA,
    name="target_parameters",
    place=7,
    text="a LoRA on attention layers and on the fused experts, which are parameters of no layer",
    settings=settings,
    needs="experts",
    limits=(
        ONE_ADAPTER,
        Limit("PEFT has no DoRA for parameters", when={"dora": (True,)}),
        Limit(
            "PEFT reads the adapter outside of the wrapped forward, where it is a flat shard "
            "(peft/tuners/lora/layer.py, get_delta_factors)",
            modes="*-fsdp1*",
        ),
    ),
    pairs=False,
)
