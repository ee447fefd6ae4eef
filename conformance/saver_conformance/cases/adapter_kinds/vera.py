"""VeRA: random matrices that all layers share, and vectors of each that scale them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from saver_conformance.cases.adapter_kind import NO_LORA, AdapterKind, layers

if TYPE_CHECKING:
    from saver_conformance.cases.case import Adapter
    from saver_conformance.cases.family import Family


def settings(adapter: Adapter, family: Family) -> dict[str, Any]:
    """The shared matrices are saved too: another version draws others from the same key."""
    return {
        **layers(adapter, family),
        "r": adapter.r,
        "d_initial": 0.2,
        "projection_prng_key": 5,
        "save_projection": True,
    }


VERA = AdapterKind(
    name="vera",
    place=16,
    text="VeRA: buffers that all layers share, outside of the layers, and vectors that scale them",
    config="VeraConfig",
    peft_type="VERA",
    settings=settings,
    marks=("vera_",),
    keys={"*.vera_A.{}": "base_model.vera_A", "*.vera_B.{}": "base_model.vera_B"},
    limits=NO_LORA,
)
