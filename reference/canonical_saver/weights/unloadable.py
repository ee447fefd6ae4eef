"""What a loader will not find again in the save of a whole model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NoReturn

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from canonical_saver.errors import WeightsError
from canonical_saver.weights.engines import Engines, dotted
from canonical_saver.weights.module_tree import named_modules
from canonical_saver.weights.saved_tensors import WeightSet
from canonical_saver.weights.tensors import ModelTensor


def told(
    weights: WeightSet, model: Any, found: Mapping[str, ModelTensor], engines: Engines
) -> WeightSet:
    """Add warnings of trained tensors that are left out, and of names that nobody looks for.

    Args:
        weights: what is saved.
        model: the unwrapped model.
        found: its tensors by their names in memory.
        engines: where its tensors lie.
    """
    warnings = [*_trained_but_ignored(model, found, engines), *_of_names(model, weights)]
    return replace(weights, warnings=(*weights.warnings, *warnings))


def refuse_config(model: Any) -> NoReturn:
    """Refuse a model of transformers whose configuration is something else, as a plain dict.

    Raises:
        WeightsError: always.
    """
    kind, found = type(model).__name__, type(model.config).__name__
    wanted = getattr(type(model), "config_class", None) or PreTrainedConfig
    raise WeightsError(
        f"model.config: expected the {wanted.__name__} of a {kind}, found a {found}, without which "
        f"nobody could load what is saved; set model.config to a {wanted.__name__}, as the model "
        "was made with"
    )


def _trained_but_ignored(
    model: nn.Module, found: Mapping[str, ModelTensor], engines: Engines
) -> Iterator[str]:
    """Warn of trained tensors that the class of the model says not to save."""
    ignored = set(getattr(model, "_keys_to_ignore_on_save", None) or ()) & found.keys()
    if not ignored:
        return
    trained = {
        dotted(place, name)
        for place, module in named_modules(model)
        for name in engines.trainable(module)
    }
    kept = {found[name].identity for name in found if name not in ignored}
    for name in sorted(ignored & trained):
        if found[name].identity not in kept:
            yield (
                f"'{name}' is not saved, though it was trained: _keys_to_ignore_on_save of "
                f"{type(model).__name__} names it; take it off that list to have it saved"
            )


def _of_names(model: Any, weights: WeightSet) -> Iterator[str]:
    """Warn of a folder with a ``config.json`` whose tensors do not have the names that it implies.

    A module around a model of transformers, as one with a value head, may give its configuration
    for its own.
    """
    if isinstance(model, PreTrainedModel) or not isinstance(
        getattr(model, "config", None), PreTrainedConfig
    ):
        return
    for name, module in named_modules(model):
        start = f"{name}."
        if not name or not any(saved.name.startswith(start) for saved in weights.saved_tensors):
            continue
        if isinstance(module, PreTrainedModel) and module.config is model.config:
            kind, inner = type(model).__name__, type(module).__name__
            yield (
                f"the weights have the names of {kind}, which begin with '{name}.', and the "
                f"configuration is that of the {inner} in it: from_pretrained finds none of them. "
                f"Load them into a {kind}, or save the module '{name}' by itself too"
            )
            return
