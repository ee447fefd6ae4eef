"""DeepSpeed's ZeRO-3 with everything in host memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from saver_conformance.cases.engines.zero import ZERO3, config, offloads, runs, stage

if TYPE_CHECKING:
    from saver_conformance.cases.case import Case


def _arguments(case: Case) -> dict[str, Any]:
    return {"deepspeed": config(case, {**stage(3, case), "offload_param": {"device": "cpu"}})}


ZERO3_OFFLOAD = replace(
    ZERO3,
    name="zero3-offload",
    place=62,
    text="ZeRO-3 with parameters and the optimizer's state in host memory",
    pairs=False,
    arguments=_arguments,
    trains=lambda trainer, wrapped: runs(trainer, wrapped, 3) and offloads(wrapped),
)
