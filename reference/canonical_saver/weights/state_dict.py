"""The state dict that a model's own rules make, by places instead of data.

The rules run on a copy of the model's modules, in which a tensor that this process has complete is
itself, and any other one a stand-in without data. Nothing is gathered; what the rules did is found
by comparing storages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass
from functools import partial
from types import CellType, FunctionType, MethodType
from typing import Any

import torch
from torch import nn

from canonical_saver.errors import WeightsError, describe
from canonical_saver.weights.bare_copy import bare
from canonical_saver.weights.engines import Engines, dotted, named
from canonical_saver.weights.module_tree import named_modules, saved_by_bitsandbytes
from canonical_saver.weights.own_rules import HOOKS, RULES, is_known
from canonical_saver.weights.tensors import ModelTensor, has_own_storage


@dataclass(frozen=True)
class StateDict:
    """The tensors of a state dict by places.

    Attributes:
        model_tensors: by their names, in order.
        warnings: what the model's rules leave out.
    """

    model_tensors: Mapping[str, ModelTensor]
    warnings: tuple[str, ...] = ()


def find(model: nn.Module, tensors: Mapping[str, ModelTensor], engines: Engines) -> StateDict:
    """Find what ``state_dict()`` of a model has, by rules of its own.

    Args:
        model: the unwrapped model.
        tensors: its parameters, buffers and quantization states by their names in memory.
        engines: where its tensors lie.

    Raises:
        WeightsError: an entry cannot be written as it is, or a trained tensor is in none.
    """
    stand_in = StandIn(model, tensors)
    return stand_in.places(stand_in.state_dict(), engines)


class StandIn:
    """A copy of a model's modules whose state dict is taken instead of the model's.

    Args:
        model: the unwrapped model.
        tensors: its parameters, buffers and quantization states by their names in memory.
        with_data: let a tensor that this process has complete be itself.

    Attributes:
        module: the copy.
    """

    def __init__(
        self, model: nn.Module, tensors: Mapping[str, ModelTensor], *, with_data: bool = True
    ) -> None:
        self.module: Any = bare(model)
        self._tensors = tensors
        self._modules = dict(named_modules(model))
        self._copies = {id(m): self.module.get_submodule(n) for n, m in self._modules.items()}
        self._sharded = any(not model_tensor.replicated for model_tensor in tensors.values())
        self._names: dict[object, str] = {}
        """Names in ``tensors`` by the places in this process that stand for them."""
        self._owned: dict[str, tuple[str, str]] = {}
        """For each name in ``tensors``, the module that has it and its name there."""
        self._fill(with_data)

    def state_dict(self, part: Any = None) -> Mapping[str, Any]:
        """What the model's rules make of the copy, or of one of its modules.

        Raises:
            WeightsError: the rules fail.
        """
        try:
            found: Mapping[str, Any] = (part or self.module).state_dict()
        except Exception as error:
            raise WeightsError(
                f"{type(self.module).__name__}: expected a state dict, found that its own rules "
                "for it fail, as they may where tensors are sharded or offloaded and have no data "
                f"here: {describe(error)}; fix them, or save from one process"
            ) from error
        return found

    def places(self, found: Mapping[str, Any], engines: Engines) -> StateDict:
        """Find where the entries of the copy's state dict lie.

        Raises:
            WeightsError: an entry cannot be written as it is, or a trained tensor is in none.
        """
        model_tensors: dict[str, ModelTensor] = {}
        warnings = []
        for name, value in found.items():
            if isinstance(value, torch.Tensor):
                with named(name):
                    model_tensors[name] = self._place(value, engines)
            elif value is None or (isinstance(value, Sized) and not len(value)):
                warnings.append(f"'{name}' of the state dict is {value!r} and is left out")
            else:
                raise WeightsError(
                    f"'{name}': expected a tensor in the state dict, found a "
                    f"{type(value).__name__}, which a weight file cannot hold; let "
                    "get_extra_state, or the hook that adds it, give a tensor"
                )
        known = {model_tensor.identity for model_tensor in self._tensors.values()}
        kept = {model_tensor.identity for model_tensor in model_tensors.values()}
        added = [
            name
            for name, model_tensor in model_tensors.items()
            if model_tensor.identity not in known
        ]
        for name, model_tensor in self._tensors.items():
            if model_tensor.identity in kept:
                continue
            # A rule may save a module's tensor in another form.
            place = dotted(self._owned[name][0], "")
            if self._is_trained(name) and not any(n.startswith(place) for n in added):
                raise WeightsError(
                    f"'{name}': expected every trained tensor in the state dict, found that the "
                    f"rules of {type(self.module).__name__} leave it out; freeze it, pass "
                    "the module that has it, or fix them"
                )
            warnings.append(f"'{name}' is not saved as it is, by the model's own rules")
        return StateDict(model_tensors, tuple(warnings))

    def _place(self, value: torch.Tensor, engines: Engines) -> ModelTensor:
        known = self._names.get(_place_of(value))
        if known is not None:
            return self._tensors[known]
        computed = value.is_meta and any(
            local_slice.load is not None or not local_slice.data.is_meta
            for model_tensor in self._tensors.values()
            for local_slice in model_tensor.slices[:1]
        )
        # What reaches a sharded model past the copy finds no elements.
        computed |= self._sharded and value.is_floating_point() and not value.numel()
        model_tensor = None if computed else engines.tensor(value)
        if model_tensor is None:
            raise WeightsError(
                "expected an entry of the state dict that lies in memory, found one that a hook or "
                "an override computes of tensors that are sharded or offloaded; save it from one "
                "process that has them complete"
            )
        return model_tensor

    def _is_trained(self, name: str) -> bool:
        place, short = self._owned[name]
        module = self._modules[place]
        value = module._parameters.get(short)
        return short not in module._buffers if value is None else value.requires_grad

    def _fill(self, with_data: bool) -> None:
        """Give each module of the copy its tensors, its rules, and the children that are saved."""
        held: dict[str, dict[str, torch.Tensor]] = {place: {} for place in self._modules}
        stand_ins: dict[object, torch.Tensor] = {}
        for name, model_tensor in self._tensors.items():
            place, short = self._owned[name] = self._owner(name)
            module = self._modules[place]
            value = module._parameters.get(short, module._buffers.get(short))
            whole = (
                value is not None
                and model_tensor.replicated
                and tuple(value.shape) == model_tensor.shape
            )
            if value is not None and whole:
                self._names[_place_of(value)] = name  # for rules that hold the model itself
            if model_tensor.identity not in stand_ins:
                stand_ins[model_tensor.identity] = (
                    value.detach()
                    if value is not None and whole and with_data and not value.is_meta
                    else torch.empty(model_tensor.shape, dtype=model_tensor.dtype, device="meta")
                )
            held[place][short] = stand_ins[model_tensor.identity]
            self._names[_place_of(held[place][short])] = name
        for place, module in self._modules.items():
            copy = self._copies[id(module)]
            for child in copy._modules:
                if dotted(place, child) not in self._modules:
                    copy._modules[child] = None
            self._move_rules(copy)
            _hold(copy, held[place], listed=saved_by_bitsandbytes(module))

    def _owner(self, name: str) -> tuple[str, str]:
        place = name.rpartition(".")[0]
        while place not in self._modules:  # the names of a quantization state go deeper
            place = place.rpartition(".")[0]
        return place, name[len(place) + 1 :] if place else name

    def _move_rules(self, copy: nn.Module) -> None:
        for name in HOOKS:
            hooks = vars(copy)[name]
            for key in [key for key, hook in hooks.items() if is_known(hook)]:
                del hooks[key]
            for key, hook in hooks.items():
                hooks[key] = self._moved(hook)
        for name in RULES:
            if name in vars(copy):
                vars(copy)[name] = self._moved(vars(copy)[name])

    def _moved(self, rule: Any) -> Any:
        """A rule with copies in the place of the modules that it holds."""
        if isinstance(rule, nn.Module):
            return self._copies.get(id(rule), rule)
        if isinstance(rule, MethodType):
            return MethodType(rule.__func__, self._moved(rule.__self__))
        if isinstance(rule, partial):
            return partial(
                self._moved(rule.func),
                *map(self._moved, rule.args),
                **{key: self._moved(value) for key, value in rule.keywords.items()},
            )
        if not isinstance(rule, FunctionType) or not rule.__closure__:
            return rule
        cells = tuple(CellType(self._moved(cell.cell_contents)) for cell in rule.__closure__)
        moved = FunctionType(
            rule.__code__, rule.__globals__, rule.__name__, rule.__defaults__, cells
        )
        moved.__kwdefaults__ = rule.__kwdefaults__
        vars(moved).update(vars(rule))
        return moved


def _hold(copy: nn.Module, tensors: Mapping[str, torch.Tensor], *, listed: bool) -> None:
    """Put tensors in the place of a module's own.

    Args:
        copy: the module.
        tensors: by their names in it.
        listed: let them alone be its entries of the state dict.
    """
    if listed:
        vars(copy)["_save_to_state_dict"] = _listing(tensors)
        return
    transient = copy._non_persistent_buffers_set
    buffers = {k: v for k, v in copy._buffers.items() if k in transient or v is None}
    copy._buffers = buffers | {k: v for k, v in tensors.items() if k in copy._buffers}
    parameters = {k: None for k, v in copy._parameters.items() if v is None}
    copy._parameters = parameters | {
        k: nn.Parameter(v, requires_grad=False)
        for k, v in tensors.items()
        if k not in copy._buffers
    }
    for name in tensors:
        vars(copy).pop(name, None)  # FSDP1 keeps views of its flat parameter there


def _listing(tensors: Mapping[str, torch.Tensor]) -> Callable[[dict[str, Any], str, bool], None]:
    def save(destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        del keep_vars
        destination.update({f"{prefix}{name}": tensor for name, tensor in tensors.items()})

    return save


def _place_of(tensor: torch.Tensor) -> object:
    """Equal for two tensors of the same elements in memory, and only for them."""
    if not has_own_storage(tensor):
        return id(tensor)
    storage = tensor.untyped_storage()._cdata
    return storage, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype
