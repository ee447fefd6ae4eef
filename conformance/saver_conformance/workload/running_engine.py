"""Which engine trains, read from the wrapped model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from saver_conformance.cases.engine import Engine
from saver_conformance.cases.engines import engines

if TYPE_CHECKING:
    from transformers import Trainer


def uncompiled(model: Any) -> Any:
    """The model that ``torch.compile`` or accelerate's regional compilation was given."""
    return getattr(model, "_orig_mod", model)


def running_engine(trainer: Trainer) -> Engine | None:
    """The engine that really trains, read from the wrapped model.

    Returns:
        The simplest one that fits; that of one process where no other does. None if none does.
    """
    wrapped = uncompiled(trainer.model_wrapped)
    found = [engine for engine in engines().values() if engine.trains(trainer, wrapped)]
    return next((one for one in found if one.world_sizes != (1,)), found[0] if found else None)
