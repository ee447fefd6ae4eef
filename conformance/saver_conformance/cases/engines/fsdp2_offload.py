"""FSDP2 with its shards in host memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from saver_conformance.cases.engines.fsdp2 import FSDP2, arguments, offloads, sharded

if TYPE_CHECKING:
    from saver_conformance.cases.case import Case


def _arguments(case: Case) -> dict[str, Any]:
    found = arguments(case)
    return {**found, "fsdp_config": {**found["fsdp_config"], "cpu_offload": True}}


def _trains(trainer: Any, wrapped: Any) -> bool:
    root = sharded(trainer, wrapped)
    return root is not None and offloads(root)


FSDP2_OFFLOAD = replace(
    FSDP2,
    name="fsdp2-offload",
    place=61,
    text="FSDP2 with parameters, gradients and the optimizer's state in host memory",
    pairs=False,
    replicas=(1,),
    arguments=_arguments,
    trains=_trains,
)
