"""torch's FSDP2, ``fully_shard``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from saver_conformance.cases.engine import Engine
from saver_conformance.cases.engines.fsdp1 import NO_ODD_PARAMETERS, fsdp_config

if TYPE_CHECKING:
    from saver_conformance.cases.case import Case


def arguments(case: Case) -> dict[str, Any]:
    """The arguments of ``TrainingArguments``."""
    config = {**fsdp_config(case, 2), "reshard_after_forward": True}
    found: dict[str, Any] = {"fsdp": True, "fsdp_config": config}
    if case.replicas > 1:
        from accelerate.parallelism_config import ParallelismConfig

        shards = case.world_size // case.replicas
        found["parallelism_config"] = ParallelismConfig(
            dp_replicate_size=case.replicas, dp_shard_size=shards
        )
    return found


def offloads(wrapped: Any) -> bool:
    """Whether FSDP2 keeps the shards of ``wrapped`` in host memory."""
    from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule

    states = (one._get_fsdp_state() for one in wrapped.modules() if isinstance(one, FSDPModule))
    groups = (group for state in states if (group := state._fsdp_param_group))
    return any(isinstance(group.offload_policy, CPUOffloadPolicy) for group in groups)


def sharded(trainer: Any, wrapped: Any) -> Any:
    """The module that FSDP2 shards, after accelerate's preparation; None without one.

    FSDP2 shards the compiled model; elsewhere the wrapped model is compiled.
    """
    from torch.distributed.fsdp import FSDPModule

    if getattr(trainer, "is_distributed_loading_by_transformers", False):
        return None
    for module in (wrapped, trainer.model_wrapped):
        if isinstance(module, FSDPModule):
            return module
    return None


def _trains(trainer: Any, wrapped: Any) -> bool:
    root = sharded(trainer, wrapped)
    return root is not None and not offloads(root)


FSDP2 = Engine(
    name="fsdp2",
    place=30,
    text="torch's fully_shard; each rank holds some rows of each weight",
    replicas=(1, 2),
    shards=True,
    pairs=True,
    seconds=0.45,
    no_odd_parameters=NO_ODD_PARAMETERS,
    arguments=arguments,
    trains=_trains,
)
