"""What training changed and PEFT's rules do not select.

PEFT saves its own parameters, and drops what was trained next to them without ``modules_to_save``:
a norm or an embedding that was unfrozen by hand, the running statistics of a batch norm. Loading
takes any tensor that has the name of one of the model, so they are saved under these names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from peft.tuners import XLoraModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper, ModulesToSaveWrapper
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from canonical_saver.errors import WeightsError
from canonical_saver.versions import PEFT_KINDS_KNOW_THEIR_TENSORS
from canonical_saver.weights.engines import Engines
from canonical_saver.weights.module_tree import named_modules, unwrap
from canonical_saver.weights.saved_tensors import SavedTensor
from canonical_saver.weights.tensors import ModelTensor

SHOWN = 5
"""So many names are said in a message, and how many others there are."""


def unselected(
    trained: Collection[str],
    model_tensors: Mapping[str, ModelTensor],
    weight_sets: Collection[Collection[SavedTensor]],
) -> list[str]:
    """Compare what was trained with what will be written.

    Args:
        trained: names in memory of all that training changed.
        model_tensors: the tensors of the model by their names in memory.
        weight_sets: the tensors to write, for each adapter.

    Returns:
        The names of those that nothing to write is made of, in the order of the model. A tensor
        with two names is written when it is under one of them.
    """
    written = {
        source_range.model_tensor.identity
        for saved_tensors in weight_sets
        for e in saved_tensors
        for source_range in e.source_ranges or ()
    }
    written |= {
        model_tensors[name].identity
        for saved_tensors in weight_sets
        for e in saved_tensors
        for name in e.needs
    }
    return [n for n, s in model_tensors.items() if n in trained and s.identity not in written]


def trained_names(model: nn.Module, engines: Engines) -> set[str]:
    """Names in memory of all that training changes: what requires a gradient, and statistics.

    Which buffers training has changed cannot be told without the base, see
    :mod:`canonical_saver.weights.changed_buffers`. Those of batch norms change whenever the model
    runs in training mode, whether frozen or not, and then they count batches.
    """
    found: set[str] = set()
    replaced: list[str] = []
    for name, module in named_modules(model):
        start = f"{name}." if name else ""
        if isinstance(module, ModulesToSaveWrapper):
            # A copy is trained instead.
            replaced.append(f"{start}original_module.")
        if not start.startswith(tuple(replaced)):
            found |= {start + own for own in (*engines.trainable(module), *_statistics(module))}
    return found


def loadable(model: Any, names: Collection[str]) -> list[str]:
    """Keep the names by which PEFT loads a tensor into the base model.

    Args:
        model: the unwrapped PEFT model.
        names: tensors in memory that PEFT's rules do not select.

    Raises:
        WeightsError: one of them is outside of the base model, or one of PEFT's own.
    """
    if isinstance(model.base_model, XLoraModel):
        return list(names)  # it loads by the names in memory
    base = unwrap(model.get_base_model())
    start = next(f"{name}." for name, module in named_modules(model) if module is base)
    lost, inside = [], []
    own = tuple(_own_places(model))
    taken = _taken_for_own(model)
    for name in names:
        if name.startswith(start) and not name.startswith(own) and not (taken and taken in name):
            inside.append(name)
        else:
            lost.append(name)
    aliases = ("word_embeddings.",)  # that PEFT gives to the embeddings for prompts
    if lost := [name for name in lost if not name.startswith(aliases)]:
        raise WeightsError(
            f"expected that PEFT saves all that was trained, found {listed(lost)}, which its rules "
            "leave out and its loader does not find; freeze it, or train it by modules_to_save"
        )
    return inside


def _taken_for_own(model: Any) -> str:
    """The part of names that PEFT's loader takes for its own wherever it stands; "" for none."""
    if PEFT_KINDS_KNOW_THEIR_TENSORS.is_there:
        return ""
    return str(getattr(model.base_model, "prefix", ""))


def listed(names: Collection[str]) -> str:
    """Say some names, and how many others there are."""
    some = ", ".join(f"'{name}'" for name in list(names)[:SHOWN])
    return some if len(names) <= SHOWN else f"{some} and {len(names) - SHOWN} more"


def _own_places(model: nn.Module) -> Iterator[str]:
    """Beginnings of the names of PEFT's own tensors in the base model."""
    for name, module in named_modules(model):
        if isinstance(module, BaseTunerLayer) and not isinstance(module, AuxiliaryTrainingWrapper):
            mine = [*module._modules, *module._parameters, *module._buffers]
            yield from (f"{name}.{own}" for own in mine if own != "base_layer")


def _statistics(module: nn.Module) -> list[str]:
    """The names of a batch norm's running statistics, if it has counted a batch."""
    if not isinstance(module, _NormBase) or not module.track_running_stats:
        return []
    counted = module.num_batches_tracked
    if not isinstance(counted, torch.Tensor) or counted.is_meta or not int(counted):
        return []
    return [name for name, value in module._buffers.items() if value is not None]
