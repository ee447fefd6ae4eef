"""What belongs in the save of a whole model: its persistent tensors, tied ones once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from torch import nn

from canonical_saver.weights import hub_conversion
from canonical_saver.weights.engines import Engines, with_numbered_experts
from canonical_saver.weights.module_tree import named_modules
from canonical_saver.weights.own_rules import has_own_saving, has_own_state_dict
from canonical_saver.weights.saved_tensors import Convert, WeightSet
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
    owner, found, warnings = _by_own_rules(model, tensors, engines)
    model_tensors = with_numbered_experts(owner, found)
    made = weights(owner, model_tensors, partial(hub_conversion.revert, owner))
    return replace(made, owner=owner, warnings=warnings)


def _by_own_rules(
    model: nn.Module, tensors: Mapping[str, ModelTensor], engines: Engines
) -> tuple[nn.Module, Mapping[str, ModelTensor], tuple[str, ...]]:
    """The module whose configuration is saved, the tensors of the save, and warnings."""
    if has_own_saving(model):
        from canonical_saver.weights import own_saving

        owner, found = own_saving.follow(model, tensors, engines)
        return owner, found.model_tensors, found.warnings
    if has_own_state_dict(model):
        from canonical_saver.weights import state_dict

        found = state_dict.find(model, tensors, engines)
        return model, found.model_tensors, found.warnings
    return model, tensors, ()


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
    for target, origin in _reloaded_ties(model, kept):
        if target in kept and origin in kept and _tied(kept[target], kept[origin]):
            del kept[target]
    saved_tensors = tuple(hub_conversion.to_hub(model, kept))
    return WeightSet("", "model", saved_tensors, dict(kept if inputs is None else inputs), convert)


def _tied(one: ModelTensor, other: ModelTensor) -> bool:
    if one.identity == other.identity or not hasattr(one.identity, "load"):
        return one.identity == other.identity
    from canonical_saver.weights.engines import offload

    return offload.equal(one, other)


def _reloaded_ties(
    model: nn.Module, model_tensors: Mapping[str, ModelTensor]
) -> list[tuple[str, str]]:
    """Pairs (target, origin) that loading will tie again, by each submodel's own declaration.

    What is tied in memory only, against the configuration, has to be saved twice: loading gives a
    target that is neither tied nor in the file random values.
    """
    ties: list[tuple[str, str]] = []
    for prefix, module in named_modules(model):
        declared = getattr(module, "_tied_weights_keys", None)
        config = getattr(module, "config", None)
        if not isinstance(declared, dict) or not getattr(config, "tie_word_embeddings", False):
            continue
        inside = f"{prefix}." if prefix else ""
        names = sorted(n.removeprefix(inside) for n in model_tensors if n.startswith(inside))
        for target, origin in declared.items():
            targets = [n for n in names if re.search(f"^{target}", n)]
            origins = [n for n in names if re.search(f"^{origin}", n)]
            ties += [
                (inside + name, inside + origins[number % len(origins)])
                for number, name in enumerate(targets)
                if origins
            ]
    return ties
