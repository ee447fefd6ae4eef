"""DeepSpeed's ZeRO in its three stages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from saver_conformance.cases.engine import Engine
from saver_conformance.cases.limit import Limit

if TYPE_CHECKING:
    from saver_conformance.cases.case import Case

NO_ODD_PARAMETERS = "DeepSpeed broadcasts views that scalar parameters do not have (engine.py)"


def config(case: Case, zero: Mapping[str, Any]) -> dict[str, Any]:
    """DeepSpeed's configuration.

    Args:
        case: what is trained.
        zero: the part about ZeRO.
    """
    return {
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "bf16": {"enabled": case.dtype != "float32"},
        "zero_optimization": dict(zero),
        "optimizer": {"type": "AdamW", "params": {"lr": "auto", "torch_adam": True}},
    }


def stage(number: int, case: Case) -> dict[str, Any]:
    """The part about ZeRO of this stage."""
    zero: dict[str, Any] = {"stage": number}
    if number > 1:
        zero["offload_optimizer"] = {"device": "cpu"}
    if number == 3:
        # What DeepSpeed and accelerate ask their users to set for a save of whole weights.
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    if number == 3 and case.persistence_threshold == "zero":
        zero["stage3_param_persistence_threshold"] = 0
    return zero


def _arguments(number: int, case: Case) -> dict[str, Any]:
    return {"deepspeed": config(case, stage(number, case))}


def runs(trainer: Any, wrapped: Any, number: int) -> bool:
    """Whether DeepSpeed trained in the stage of this number, without tensor parallelism."""
    return (
        bool(trainer.is_deepspeed_enabled)
        and wrapped.zero_optimization_stage() == number
        and getattr(wrapped, "autotp_size", int)() <= 1
    )


def offloads(wrapped: Any) -> bool:
    """Whether ZeRO-3 keeps parameters in host memory."""
    offload = wrapped.zero_offload_param()
    return offload is not None and offload.device != "none"


@contextmanager
def whole(root: Any, modify: bool) -> Iterator[list[Any]]:
    """The parameters, gathered by ZeRO-3 itself."""
    import deepspeed

    parameters = list(root.parameters())
    with deepspeed.zero.GatheredParameters(parameters, modifier_rank=0 if modify else None):
        yield parameters


ZERO1 = Engine(
    name="zero1",
    place=40,
    text="DeepSpeed's ZeRO stage 1; the optimizer's state is partitioned",
    world="deepspeed",
    requires=("deepspeed",),
    pairs=True,
    seconds=0.36,
    table="replicated-by-deepspeed",
    no_odd_parameters=NO_ODD_PARAMETERS,
    arguments=partial(_arguments, 1),
    trains=lambda trainer, wrapped: runs(trainer, wrapped, 1),
)

ZERO2 = Engine(
    name="zero2",
    place=41,
    text="DeepSpeed's ZeRO stage 2; gradients and the optimizer's state are partitioned",
    world="deepspeed",
    requires=("deepspeed",),
    pairs=True,
    seconds=0.37,
    table="replicated-by-deepspeed",
    no_odd_parameters=NO_ODD_PARAMETERS,
    arguments=partial(_arguments, 2),
    trains=lambda trainer, wrapped: runs(trainer, wrapped, 2),
)

ZERO3 = Engine(
    name="zero3",
    place=42,
    text="DeepSpeed's ZeRO stage 3; each rank holds a part of each weight",
    world="deepspeed",
    requires=("deepspeed",),
    shards=True,
    pairs=True,
    seconds=0.65,
    axes={"persistence_threshold": ("zero", "default")},
    limits=(
        Limit(
            "DeepSpeed gathers 4-bit weights for DoRA as if it had partitioned them",
            modes="qlora-*",
            when={"dora": (True,)},
        ),
    ),
    no_odd_parameters=NO_ODD_PARAMETERS,
    arguments=partial(_arguments, 3),
    trains=lambda trainer, wrapped: runs(trainer, wrapped, 3) and not offloads(wrapped),
    whole=whole,
)
