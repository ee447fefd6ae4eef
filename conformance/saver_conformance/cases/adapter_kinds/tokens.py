"""A LoRA with some rows of the embedding trained next to it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from saver_conformance.cases.adapter_kinds.lora import LORA
from saver_conformance.cases.adapter_kinds.lora import settings as lora_settings
from saver_conformance.cases.limit import Limit

if TYPE_CHECKING:
    from saver_conformance.cases.case import Adapter
    from saver_conformance.cases.family import Family

ROWS = [5, 9, 30]
"""The tokens that are trained."""


def settings(adapter: Adapter, family: Family) -> dict[str, Any]:
    """A LoRA, and rows of the embedding."""
    return {
        **lora_settings(adapter, family),
        "trainable_token_indices": {family.embedding: ROWS},
    }


TOKENS = replace(
    LORA,
    name="trainable_tokens",
    place=6,
    text="a LoRA, and three rows of the embedding that are trained whole",
    settings=settings,
    marks=("lora_", "trainable_tokens_"),
    limits=(
        Limit("the embedding has one adapter", when={"targets": ("embeddings",)}),
        Limit("the embedding is trained whole or in rows", unless={"modules_to_save": ((),)}),
    ),
    pairs=False,
)
