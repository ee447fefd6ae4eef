"""FSDP2 and tensor parallelism of transformers together."""

from __future__ import annotations

from saver_conformance.cases.engine import Engine
from saver_conformance.cases.engines.fsdp1 import NO_ODD_PARAMETERS
from saver_conformance.cases.engines.fsdp_transformers import (
    FSDP_LIMITS,
    NO_QLORA,
    TRIED,
    spread,
)
from saver_conformance.cases.engines.tp import TP_LIMITS

FSDP2_TP = Engine(
    name="fsdp2-tp",
    place=71,
    text="FSDP2 and tensor parallelism of transformers together, on a mesh of two dimensions",
    unavailable={
        "lora": "PEFT takes the part that both leave of a layer for a part of one "
        "(add_lora_tp_hooks_dtensor, peft/tuners/lora/model.py)",
        "qlora": NO_QLORA,
    },
    world_sizes=(4,),
    axes=TRIED,
    limits=(*TP_LIMITS, *FSDP_LIMITS),
    no_odd_parameters=NO_ODD_PARAMETERS,
    **spread(lambda ranks: {"fsdp_size": ranks // 2, "tp_size": 2}),
)
