"""OFT: orthogonal blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from saver_conformance.cases.adapter_kind import NO_LORA, AdapterKind, layers
from saver_conformance.cases.limit import Limit

if TYPE_CHECKING:
    from saver_conformance.cases.case import Adapter
    from saver_conformance.cases.family import Family


def settings(adapter: Adapter, family: Family) -> dict[str, Any]:
    """Two rows a block, which divide every even size."""
    return {**layers(adapter, family), "r": 0, "oft_block_size": 2, "use_cayley_neumann": False}


OFT = AdapterKind(
    name="oft",
    place=13,
    text="OFT: orthogonal blocks that turn the input of a layer",
    config="OFTConfig",
    peft_type="OFT",
    settings=settings,
    marks=("oft_",),
    limits=(
        *NO_LORA,
        Limit(
            "PEFT finds no elements where it cuts the input of latent attention into blocks "
            "(shape '[162, 4, 2]' is invalid for input of size 0)",
            when={"architecture": ("deepseek_v3",)},
        ),
        Limit(
            "a rank has no part of its smallest blocks (_chunk_cat expects non-empty tensor)",
            modes="*-fsdp2-offload",
        ),
    ),
)
