"""Expert parallelism of transformers."""

from __future__ import annotations

from saver_conformance.cases.engine import Engine
from saver_conformance.cases.engines.fsdp1 import NO_ODD_PARAMETERS
from saver_conformance.cases.engines.fsdp_transformers import FSDP_LIMITS, NO_QLORA, TRIED, spread
from saver_conformance.cases.limit import Limit

_FAMILIES = ("mixtral", "qwen3_moe")

EP = Engine(
    name="ep",
    place=73,
    text="expert parallelism of transformers; each rank holds some of the experts whole",
    unavailable={"qlora": NO_QLORA},
    world_sizes=(2, 4),
    axes={**TRIED, "architecture": _FAMILIES},
    limits=(
        *FSDP_LIMITS,
        Limit(
            "a model without an `ep_plan` has nothing to divide (_resolve_parallel_plans, "
            "transformers/distributed/mixin.py)",
            unless={"architecture": _FAMILIES},
        ),
        Limit(
            "three experts do not divide among two ranks (shard_param, "
            "transformers/distributed/expert_parallel.py)",
            when={"sizes": ("odd",)},
        ),
    ),
    no_odd_parameters=NO_ODD_PARAMETERS,
    **spread(lambda ranks: {"fsdp_size": ranks, "ep_size": 2}),
)
