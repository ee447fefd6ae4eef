"""FSDP1 with its shards in host memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from saver_conformance.cases.engines.fsdp1 import FSDP1, arguments, offloads

if TYPE_CHECKING:
    from saver_conformance.cases.case import Case


def _arguments(case: Case) -> dict[str, Any]:
    found = arguments(case)
    return {**found, "fsdp_config": {**found["fsdp_config"], "cpu_offload": True}}


def _trains(trainer: Any, wrapped: Any) -> bool:
    from torch.distributed.fsdp import FullyShardedDataParallel

    return isinstance(wrapped, FullyShardedDataParallel) and offloads(wrapped)


FSDP1_OFFLOAD = replace(
    FSDP1,
    name="fsdp1-offload",
    place=60,
    text="FSDP1 with parameters, gradients and the optimizer's state in host memory",
    pairs=False,
    arguments=_arguments,
    trains=_trains,
)
