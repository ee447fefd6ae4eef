"""LoRA with a scale that depends on the root of the rank."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from saver_conformance.cases.adapter_kinds.lora import LORA
from saver_conformance.cases.adapter_kinds.lora import settings as lora_settings

if TYPE_CHECKING:
    from saver_conformance.cases.case import Adapter
    from saver_conformance.cases.family import Family


def settings(adapter: Adapter, family: Family) -> dict[str, Any]:
    """A LoRA that is scaled by ``alpha / sqrt(r)``."""
    return {**lora_settings(adapter, family), "use_rslora": True}


RSLORA = replace(
    LORA,
    name="rslora",
    place=1,
    text="a LoRA whose scale is alpha by the root of the rank; only its configuration tells",
    settings=settings,
    pairs=False,
)
