"""Tensor parallelism of transformers."""

from __future__ import annotations

from saver_conformance.cases.engine import Engine
from saver_conformance.cases.engines.fsdp_transformers import NO_QLORA, spread

TP = Engine(
    name="tp",
    place=70,
    text="tensor parallelism of transformers; matrices are cut along rows or columns (DTensor)",
    unavailable={"qlora": NO_QLORA},
    world_sizes=(2,),
    **spread(lambda ranks: {"tp_size": ranks}),
)
