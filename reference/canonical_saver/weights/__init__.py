"""What belongs in a save, under which names.

A full save is the model's persistent tensors, tied ones once, named as on the hub. An adapter save
is all that PEFT would reload. Only names, shapes and places are handled here; no data.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from torch import nn

from canonical_saver.errors import WeightsError
from canonical_saver.request import Request
from canonical_saver.weights import full
from canonical_saver.weights.engines import Engines, dotted
from canonical_saver.weights.module_tree import named_modules, unwrap
from canonical_saver.weights.saved_tensors import WeightSet
from canonical_saver.weights.tensors import ModelTensor


def find_model(roots: tuple[nn.Module, ...]) -> Any:
    """Find the model to save among everything that was passed, without wrappers.

    Preference tuning passes the base model while the trainer trains the PEFT model around it;
    then the PEFT model is the one.
    """
    model = unwrap(roots[0])
    if _uses_peft():
        from canonical_saver.weights import injected

        model = injected.find(injected.outermost(model, roots[1:]))
    return model


def is_peft(model: nn.Module) -> bool:
    """Whether a model carries PEFT adapters."""
    if not _uses_peft():
        return False
    from peft import PeftModel

    return isinstance(model, PeftModel)


def _uses_peft() -> bool:
    """Whether this process uses PEFT, without which there are no adapters; it imports slowly."""
    return "peft" in sys.modules


def collect(model: Any, engines: Engines, request: Request | None = None) -> list[WeightSet]:
    """Find all that a save of the model holds.

    Args:
        model: the unwrapped model, PEFT or not.
        engines: where its tensors lie.
        request: may ask for the base with the adapter merged into it instead of the adapter.

    Raises:
        WeightsError: nothing to save, or a name is used twice.
    """
    tensors = dict(named_tensors(model, engines))
    if _uses_peft():
        from canonical_saver.weights import with_peft

        weight_sets = with_peft.weight_sets(model, tensors, engines, request)
    else:
        weight_sets = [full.model_weights(model, tensors, engines)]
    for weights in weight_sets:
        names = [saved.name for saved in weights.saved_tensors]
        if not names or len(set(names)) != len(names):
            raise WeightsError(
                f"expected tensors with names of their own in '{weights.stem}', found "
                f"{len(names)} with {len(set(names))} names; is the model a trained one?"
            )
    return weight_sets


def named_tensors(model: nn.Module, engines: Engines) -> Iterator[tuple[str, ModelTensor]]:
    """The state dict by places instead of data, in its order and under canonical names.

    Args:
        model: the unwrapped model.
        engines: where its tensors lie.
    """
    for place, module in named_modules(model):
        for name, model_tensor in engines.persistent(module, place).items():
            yield dotted(place, name), model_tensor
