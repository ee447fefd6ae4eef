"""What belongs in the save of a base model with its adapter merged into it.

Each adapted module is merged alone, by PEFT, on a rank that is given its tensors. The model itself
is not touched, and no rank holds more than one such module complete.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn

from canonical_saver.errors import RequestError, WeightsError
from canonical_saver.request import Request
from canonical_saver.weights import full, hub_conversion
from canonical_saver.weights.holding import holding
from canonical_saver.weights.module_tree import named_modules, unwrap
from canonical_saver.weights.own_rules import has_own_state_dict
from canonical_saver.weights.saved_tensors import WeightSet
from canonical_saver.weights.tensors import ModelTensor

T = TypeVar("T")


def can_merge(model: Any) -> bool:
    """Whether a PEFT model has a base that can take its adapters: one that is not quantized."""
    return not getattr(model.get_base_model(), "hf_quantizer", None)


def is_asked(model: Any, request: Request) -> bool:
    """Whether the adapters of a PEFT model are to be merged, as a request asks.

    ReLoRA leaves them as they are where the base is quantized.

    Raises:
        WeightsError: ``merge_lora`` asks for what cannot be done.
        RequestError: the format cannot hold what is yet to be merged.
    """
    if not can_merge(model):
        if request.merge == "merge_lora":
            raise WeightsError(
                "merge_lora: expected a base that can take the adapter, found a quantized one; "
                "save the adapter, and merge it into the base as it was before quantization"
            )
        return False
    if request.format == "dcp":
        raise RequestError(
            f"{request.merge}: expected weights in memory, as the dcp format has them, found "
            "ones that are yet to be merged; save as safetensors"
        )
    return True


def weights(model: Any, model_tensors: Mapping[str, ModelTensor]) -> WeightSet:
    """Find the tensors of the base model, those of adapted modules as yet to be computed.

    Args:
        model: the unwrapped PEFT model.
        model_tensors: its tensors by their names in memory.

    Raises:
        WeightsError: the adapter is of a kind that cannot be merged, or the base has rules of its
            own for its state dict.
    """
    if not isinstance(model.base_model, BaseTuner):
        raise WeightsError(
            "merge_lora, relora: expected an adapter that can be merged into its base, as LoRA, "
            f"found {type(model.base_model).__name__}; save the adapter"
        )
    model.base_model._check_merge_allowed()
    base = unwrap(model.get_base_model())
    if has_own_state_dict(base):
        raise WeightsError(
            "merge_lora, relora: expected a base that is saved tensor by tensor, found that "
            f"modules of {type(base).__name__} have rules of their own for their state dict; merge "
            "it by merge_and_unload and save the result"
        )
    start = next(f"{name}." for name, module in named_modules(model) if module is base)
    model_tensors = _under(start, model_tensors)
    adapted = _adapted(base)
    found: dict[str, ModelTensor] = {}
    merged: dict[object, tuple[str, ModelTensor]] = {}
    done: set[str] = set()
    for name, model_tensor in model_tensors.items():
        place = _place(name, adapted)
        if not place:
            found[name] = model_tensor
        elif place not in done:
            done.add(place)
            found |= _to_merge(adapted[place], place, _under(place, model_tensors))
    for name, model_tensor in found.items():
        if model_tensor.needs:
            merged.setdefault(model_tensor.identity, (name, model_tensor))
    # What has two names has two names after one of them was merged into.
    aliases = {}
    for name, model_tensor in found.items():
        first, one = merged.get(model_tensor.identity, (name, model_tensor))
        if one is not model_tensor:
            found[name], aliases[name] = one, first
    plain = {name: model_tensor for name, model_tensor in found.items() if not model_tensor.needs}
    convert = _Merge(base, adapted, aliases, frozenset(plain))
    saved = full.weights(base, found, convert, inputs=model_tensors | plain)
    return replace(saved, owner=base)


@dataclass(frozen=True)
class _Merge:
    """Merges some adapted modules, given all their tensors, and names the result as on the hub."""

    base: nn.Module
    adapted: dict[str, nn.Module]
    aliases: dict[str, str]
    plain: frozenset[str]

    def __call__(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        made = {name: tensor for name, tensor in tensors.items() if name in self.plain}
        for place in {_place(name, self.adapted) for name in tensors.keys() - self.plain}:
            module = holding(self.adapted[place], _under(place, tensors))
            made |= {place + k: v for k, v in _unloaded(module, merge=True).items()}
        made |= {alias: made[name] for alias, name in self.aliases.items() if name in made}
        return hub_conversion.revert(self.base, made)


def _adapted(base: nn.Module) -> dict[str, nn.Module]:
    """The outermost modules that PEFT has put in the place of others, by their names and a dot."""
    found: dict[str, nn.Module] = {}
    for name, module in named_modules(base):
        replaced = isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper)
        if replaced and not _place(f"{name}.", found):
            found[f"{name}."] = module
    return found


def _place(name: str, adapted: Mapping[str, nn.Module]) -> str:
    """The adapted module that a tensor or module is in, "" if in none."""
    ends = (number + 1 for number, letter in enumerate(name) if letter == ".")
    return next((name[:end] for end in ends if name[:end] in adapted), "")


def _under(place: str, named: Mapping[str, T]) -> dict[str, T]:
    return {k.removeprefix(place): v for k, v in named.items() if k.startswith(place)}


def _to_merge(
    module: nn.Module, place: str, own: Mapping[str, ModelTensor]
) -> dict[str, ModelTensor]:
    """The tensors that a module of the base will have, once its adapter is merged into it."""
    shadows = {k: torch.empty(s.shape, dtype=s.dtype, device="meta") for k, s in own.items()}
    shadow = holding(module, shadows)
    names = {id(tensor): name for name, tensor in shadow.state_dict(keep_vars=True).items()}
    computed = any(isinstance(part, BaseTunerLayer) for part in shadow.modules())
    needs = frozenset(place + name for name in own) if computed else frozenset[str]()
    found = {}
    for name, tensor in _unloaded(shadow, merge=False).items():
        model_tensor = own[names[id(tensor)]]
        found[place + name] = (
            replace(model_tensor, slices=(), needs=needs) if computed else model_tensor
        )
    return found


def _unloaded(module: Any, *, merge: bool) -> dict[str, torch.Tensor]:
    """The tensors of a module after PEFT has given back what it stands for."""
    if hasattr(module, "unload_and_optionally_merge_module"):
        module = module.unload_and_optionally_merge_module(
            merge=merge, safe_merge=False, adapter_names=None
        )
    else:
        if merge:
            module.merge()
        module = module.get_base_layer()
    found: dict[str, torch.Tensor] = module.state_dict(keep_vars=True)
    return found
