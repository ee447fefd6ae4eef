"""LoHa and LoKr: products of small matrices."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from saver_conformance.cases.adapter_kind import NO_LORA, AdapterKind, layers
from saver_conformance.cases.limit import Limit

if TYPE_CHECKING:
    from saver_conformance.cases.case import Adapter
    from saver_conformance.cases.family import Family


def settings(adapter: Adapter, family: Family) -> dict[str, Any]:
    """Matrices of the rank that the axes say."""
    return {**layers(adapter, family), "r": adapter.r, "alpha": adapter.alpha}


LOHA = AdapterKind(
    name="loha",
    place=11,
    text="LoHa: elementwise products of two pairs of small matrices",
    config="LoHaConfig",
    peft_type="LOHA",
    settings=settings,
    marks=("hada_",),
    limits=(*NO_LORA, Limit("PEFT has no LoHa or LoKr for 4-bit layers", modes="qlora-*")),
)
LOKR = replace(
    LOHA,
    name="lokr",
    place=12,
    text="LoKr: Kronecker products of small matrices",
    config="LoKrConfig",
    peft_type="LOKR",
    marks=("lokr_",),
)
