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
            "vectors of float32 meet experts of bfloat16 in a compiled region "
            "(expected m1 and m2 to have the same dtype)",
            modes="qlora-fsdp2*",
            when={
                "architecture": ("gpt_oss",),
                "dtype": ("mixed",),
                "wrapper": ("regional",),
            },
        ),
    ),
)
