"""What belongs in the save of a whole model: its persistent tensors, tied ones once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from canonical_saver.weights.engines import Engines
from canonical_saver.weights.module_tree import named_modules
from canonical_saver.weights.own_rules import has_own_saving, has_own_state_dict
from canonical_saver.weights.saved_tensors import Convert, SavedTensor, WeightSet, direct
from canonical_saver.weights.tensors import ModelTensor


def model_weights(
    model: nn.Module, tensors: Mapping[str, ModelTensor], engines: Engines
) -> WeightSet:
    """Find all that a save of a whole model holds, by the rules that its classes have.

    Args:
        model: the unwrapped model.
        tensors: its tensors by their names in memory.
        engines: where they lie.

    Raises:
        WeightsError: something that was trained cannot be saved, or a rule cannot be followed.
    """
    if getattr(model, "hf_quantizer", None) is not None:
        from canonical_saver.weights.quantized import refuse_quantizer

        refuse_quantizer(model)
    owner, found, warnings = model, tensors, tuple[str, ...]()
    if has_own_saving(model) or has_own_state_dict(model):
        from canonical_saver.weights import own_saving

        owner, found, warnings = own_saving.find(model, tensors, engines)
    made = weights(owner, engines.numbered(owner, found), partial(_revert, owner))
    made = replace(made, owner=owner, warnings=warnings)
    if not getattr(model, "_keys_to_ignore_on_save", True):  # a model of transformers, all saved
        return made
    from canonical_saver.weights import unloadable

    return unloadable.told(made, model, tensors, engines)


def weights(
    model: nn.Module,
    found: Mapping[str, ModelTensor],
    convert: Convert,
    inputs: Mapping[str, ModelTensor] | None = None,
) -> WeightSet:
    """Find all that a save of a whole model holds.

    Args:
        model: the unwrapped model.
        found: its tensors by their names in memory.
        convert: computes those that have another form in a file, under their names on the hub.
        inputs: what ``convert`` needs, by names in memory; ``found`` if not given.
    """
    ignored = getattr(model, "_keys_to_ignore_on_save", None) or ()
    kept = {name: tensor for name, tensor in found.items() if name not in ignored}
    if any(declares_ties(module) for _, module in named_modules(model)):
        from canonical_saver.weights import ties

        kept = ties.saved_once(model, kept)
    saved_tensors = tuple(_saved_tensors(model, kept))
    return WeightSet("", "model", saved_tensors, dict(kept if inputs is None else inputs), convert)


def declares_ties(module: nn.Module) -> bool:
    """Whether a model's class and configuration say that loading ties some of its tensors."""
    ties = getattr(getattr(module, "config", None), "tie_word_embeddings", False)
    return bool(ties) and isinstance(getattr(module, "_tied_weights_keys", None), dict)


def _saved_tensors(model: nn.Module, kept: Mapping[str, ModelTensor]) -> list[SavedTensor]:
    """Name and shape the tensors of a model as on the hub, see ``hub_conversion``."""
    computed = any(model_tensor.needs for model_tensor in kept.values())
    if not computed and _has_hub_names(model):
        return [direct(name, model_tensor) for name, model_tensor in kept.items()]
    from canonical_saver.weights.hub_conversion import to_hub

    return to_hub(model, kept)


def _has_hub_names(model: nn.Module) -> bool:
    """Whether a model has the names and shapes of the hub in memory too, as most have.

    What is reverted for a model without conversions is given back as it is.
    """
    if not isinstance(model, PreTrainedModel):
        return True
    if any(isinstance(module, FSDPModule) for module in model.modules()):
        from canonical_saver.weights.bare_copy import bare

        model = bare(model)  # conversions are looked up by the names of classes
    nothing: dict[str, torch.Tensor] = {}
    named = hasattr(model.config, "model_type")
    return named and revert_weight_conversion(model, nothing) is nothing


def _revert(model: nn.Module, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    from canonical_saver.weights.hub_conversion import revert

    return revert(model, tensors)
