"""Which engine trains, read from the wrapped model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from saver_conformance.cases.case import Engine

if TYPE_CHECKING:
    from transformers import Trainer


def uncompiled(model: Any) -> Any:
    """The model that ``torch.compile`` or accelerate's regional compilation was given."""
    return getattr(model, "_orig_mod", model)


def running_engine(trainer: Trainer) -> Engine:
    """The engine that really trains, read from the wrapped model.

    A framework that quietly falls back to another engine would make every verdict worthless.
    """
    from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
    from torch.nn.parallel import DistributedDataParallel

    wrapped = uncompiled(trainer.model_wrapped)
    if trainer.is_deepspeed_enabled:
        engine: Engine = f"zero{wrapped.zero_optimization_stage()}"  # type: ignore[assignment]
        return engine
    if isinstance(wrapped, FullyShardedDataParallel):
        return "fsdp1"
    # FSDP2 shards the compiled model; elsewhere the wrapped model is compiled.
    if isinstance(wrapped, FSDPModule) or isinstance(trainer.model_wrapped, FSDPModule):
        return "fsdp2"
    return "ddp" if isinstance(wrapped, DistributedDataParallel) else "single"
