"""LoRA: two small matrices beside each layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from saver_conformance.cases.adapter_kind import AdapterKind, layers

if TYPE_CHECKING:
    from saver_conformance.cases.case import Adapter
    from saver_conformance.cases.family import Family


def settings(adapter: Adapter, family: Family) -> dict[str, Any]:
    """A LoRA as the axes say."""
    return {
        **layers(adapter, family),
        "r": adapter.r,
        "lora_alpha": adapter.alpha,
        "bias": adapter.bias,
        "use_dora": adapter.dora,
    }


LORA = AdapterKind(
    name="lora",
    place=0,
    text="two small matrices beside each layer that it changes",
    config="LoraConfig",
    peft_type="LORA",
    settings=settings,
    untrained={"init_lora_weights": False},
    marks=("lora_",),
    pairs=True,
)
