"""LoRAs that start from a decomposition of the base, and change the base for it."""

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


def pissa(adapter: Adapter, family: Family) -> dict[str, Any]:
    """A LoRA of the principal singular values."""
    return {**lora_settings(adapter, family), "init_lora_weights": "pissa"}


def olora(adapter: Adapter, family: Family) -> dict[str, Any]:
    """A LoRA of an orthonormal basis."""
    return {**lora_settings(adapter, family), "init_lora_weights": "olora"}


_LIMITS = (
    ONE_ADAPTER,
    Limit("the base is decomposed, which quantized weights are not for", modes="qlora-*"),
    Limit("PEFT decomposes linear layers", when={"targets": ("embeddings",)}),
    Limit("DoRA starts from the base, which this kind changes", when={"dora": (True,)}),
)

PISSA = replace(
    LORA,
    name="pissa",
    place=2,
    text="a LoRA that starts from the principal singular values of the base, which keeps the rest",
    settings=pissa,
    limits=_LIMITS,
    pairs=False,
)
OLORA = replace(
    PISSA,
    name="olora",
    place=3,
    text="a LoRA that starts from an orthonormal basis of the base, which keeps the rest",
    settings=olora,
)
