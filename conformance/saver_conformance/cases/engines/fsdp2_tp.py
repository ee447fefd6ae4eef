"""FSDP2 and tensor parallelism of transformers together."""

from __future__ import annotations

from saver_conformance.cases.engine import Engine
from saver_conformance.cases.engines.fsdp_transformers import NO_QLORA, spread

FSDP2_TP = Engine(
    name="fsdp2-tp",
    place=71,
    text="FSDP2 and tensor parallelism of transformers together, on a mesh of two dimensions",
    unavailable={"qlora": NO_QLORA},
    world_sizes=(4,),
    **spread(lambda ranks: {"fsdp_size": ranks // 2, "tp_size": 2}),
)
