"""AdaLoRA: a LoRA in the form of a singular value decomposition."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from saver_conformance.cases.adapter_kind import NO_LORA, AdapterKind, layers
from saver_conformance.cases.limit import Limit

if TYPE_CHECKING:
    from saver_conformance.cases.case import Adapter
    from saver_conformance.cases.family import Family


def settings(adapter: Adapter, family: Family) -> dict[str, Any]:
    """A rank that nothing lowers: training is over before."""
    return {
        **layers(adapter, family),
        "init_r": adapter.r,
        "target_r": adapter.r,
        "lora_alpha": adapter.alpha,
        "total_step": 100,
    }


ADALORA = AdapterKind(
    name="adalora",
    place=14,
    text="AdaLoRA: a LoRA in the form of a singular value decomposition",
    config="AdaLoraConfig",
    peft_type="ADALORA",
    settings=settings,
    marks=("lora_",),
    limits=(
        *NO_LORA,
        Limit(
            "PEFT unfreezes ranknum when it brings an adapter to half precision, trains it, and "
            "neither saves nor loads it (peft/tuners/tuners_utils.py, "
            "_move_adapter_to_device_of_base_layer)",
            unless={"dtype": ("float32",)},
        ),
        *(
            Limit(
                "its regularisation reads matrices outside of the wrapped forward, where they are "
                "shards (peft/tuners/adalora/model.py, forward)",
                modes=modes,
            )
            for modes in ("*-fsdp?", "*-fsdp?-offload", "*-hsdp", "*-zero3")
        ),
    ),
)
