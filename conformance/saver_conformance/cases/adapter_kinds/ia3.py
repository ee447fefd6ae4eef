"""IA3: a vector that scales each layer's output or input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from saver_conformance.cases.adapter_kind import NO_LORA, AdapterKind, layers
from saver_conformance.cases.limit import Limit

if TYPE_CHECKING:
    from saver_conformance.cases.case import Adapter
    from saver_conformance.cases.family import Family


def settings(adapter: Adapter, family: Family) -> dict[str, Any]:
    """Vectors; the last of the layers counts as one of feed-forward, whose input is scaled."""
    return {**layers(adapter, family), "feedforward_modules": [adapter.targets[-1]]}


_WITHOUT_AUTOCAST = "qlora-fsdp2*,qlora-hsdp,qlora-zero*"

IA3 = AdapterKind(
    name="ia3",
    place=10,
    text="IA3: a vector that scales the output of a layer, or the input of feed-forward ones",
    config="IA3Config",
    peft_type="IA3",
    settings=settings,
    marks=("ia3_",),
    limits=(
        *NO_LORA,
        Limit(
            "4-bit layers that it scales compute in float32, and experts and other layers do not "
            "(expected m1 and m2 to have the same dtype)",
            modes=_WITHOUT_AUTOCAST,
            when={"dtype": ("mixed",)},
        ),
        Limit(
            "4-bit layers that it scales compute in float32, and the keys of attention, which it "
            "does not scale, do not (scaled_dot_product_attention)",
            modes=_WITHOUT_AUTOCAST,
            when={"dtype": ("bfloat16",)},
            unless={"targets": ("all",)},
        ),
    ),
)
