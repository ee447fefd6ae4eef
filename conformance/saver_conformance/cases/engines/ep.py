"""Expert parallelism of transformers."""

from __future__ import annotations

from saver_conformance.cases.engine import Engine
from saver_conformance.cases.engines.fsdp1 import NO_ODD_PARAMETERS
from saver_conformance.cases.engines.fsdp_transformers import FSDP_LIMITS, NO_QLORA, TRIED, spread
from saver_conformance.cases.limit import Limit

EP = Engine(
    name="ep",
    place=73,
    text="expert parallelism of transformers; each rank holds some of the experts whole",
    unavailable={"qlora": NO_QLORA},
    world_sizes=(2, 4),
    axes={**TRIED, "architecture": ("mixtral", "qwen3_moe")},
    limits=(
        *FSDP_LIMITS,
        Limit(
            "three experts do not divide among two ranks (shard_param, "
            "transformers/distributed/expert_parallel.py)",
            when={"sizes": ("odd",)},
        ),
    ),
    no_odd_parameters=NO_ODD_PARAMETERS,
    **spread(lambda ranks: {"fsdp_size": ranks, "ep_size": 2}),
)
