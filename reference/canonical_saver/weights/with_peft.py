"""What a save holds of a model in a process that uses PEFT, whether it has adapters or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peft import PeftModel

from canonical_saver.request import Request
from canonical_saver.weights import full, injected
from canonical_saver.weights.engines import Engines
from canonical_saver.weights.saved_tensors import WeightSet
from canonical_saver.weights.tensors import ModelTensor


def weight_sets(
    model: Any, tensors: Mapping[str, ModelTensor], engines: Engines, request: Request | None
) -> list[WeightSet]:
    """Find the adapters of a model, or the whole model.

    Args:
        model: the unwrapped model, PEFT or not.
        tensors: its tensors by their names in memory.
        engines: where its tensors lie.
        request: may ask for the base with the adapter merged into it instead of the adapter.

    Raises:
        WeightsError: something cannot be saved, or nobody could load it.
        RequestError: the format cannot hold what is yet to be merged.
    """
    if not isinstance(model, PeftModel):
        injected.refuse_hidden(model)
        return [full.model_weights(model, tensors, engines)]
    numbered = engines.numbered(model, tensors)
    if request is not None and request.merge:
        from canonical_saver.weights import merged

        if merged.is_asked(model, request):
            return [merged.weights(model, numbered)]
    from canonical_saver.weights import adapter

    return adapter.weight_sets(model, numbered, engines)
