"""DeepSpeed's AutoTP: tensor parallelism in plain tensors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from saver_conformance.cases.engine import Engine
from saver_conformance.cases.engines.zero import NO_ODD_PARAMETERS, config, stage
from saver_conformance.cases.limit import Limit

if TYPE_CHECKING:
    from saver_conformance.cases.case import Case


def _arguments(case: Case) -> dict[str, Any]:
    # What DeepSpeed and accelerate ask their users to set for a save of whole weights.
    zero = {**stage(1, case), "stage3_gather_16bit_weights_on_model_save": True}
    parallel = {"tensor_parallel": {"autotp_size": case.world_size}}
    return {"deepspeed": {**config(case, zero), **parallel}}


def _trains(trainer: Any, wrapped: Any) -> bool:
    return bool(trainer.is_deepspeed_enabled) and wrapped.autotp_size() > 1


@contextmanager
def _whole(root: Any, modify: bool) -> Iterator[list[Any]]:
    """The parameters, gathered by DeepSpeed layer by layer; on leaving it cuts them again."""
    from deepspeed.module_inject.layers import GatherReplacedLayerParams

    del modify
    gathered: set[int] = set()
    with ExitStack() as stack:
        for module in root.modules():
            # The two names of a tied tensor are one parameter, which is cut once.
            own = [part for part in module.parameters(recurse=False) if id(part) not in gathered]
            if own:
                gathered.update(map(id, own))
                stack.enter_context(GatherReplacedLayerParams(own, module))
        yield list(root.parameters())


def _forget() -> None:
    """Drop the sizes and the dtype that DeepSpeed keeps from one model for all that follow."""
    from deepspeed.runtime.tensor_parallel import init_utils

    init_utils._TP_MODEL_INIT_ARGS = None


_FAMILIES = ("llama", "llama-tied", "qwen2")

_NO_LORA = (
    "DeepSpeed also cuts the layers inside of LoRA, into parameters that its optimizer does not "
    "know (_create_param_mapping, deepspeed/runtime/zero/stage_1_and_2.py)"
)

AUTOTP = Engine(
    name="autotp",
    place=72,
    text="DeepSpeed's AutoTP with ZeRO-1; each rank holds parts of matrices in plain tensors",
    unavailable={"lora": _NO_LORA, "qlora": f"not tried, for the same reason as LoRA: {_NO_LORA}"},
    world="autotp",
    requires=("deepspeed>=0.19",),
    world_sizes=(2,),
    shards=True,
    axes={
        "architecture": _FAMILIES,
        "sizes": ("even",),
        "dtype": ("float32", "bfloat16"),
        "wrapper": ("none", "checkpointing"),
        "vocabulary": ("same",),
        "tie": ("declared",),
    },
    limits=(
        Limit(
            "DeepSpeed refuses plans with packed weights or experts (TPPlanConverter.convert, "
            "deepspeed/module_inject/tp_plan_converter.py)",
            unless={"architecture": _FAMILIES},
        ),
    ),
    no_odd_parameters=NO_ODD_PARAMETERS,
    arguments=_arguments,
    trains=_trains,
    whole=_whole,
    forget=_forget,
)
