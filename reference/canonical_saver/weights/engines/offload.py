"""Offloading by accelerate: a parameter is on the meta device, a hook of its module has its data.

The data is in main memory, or in files that are read when they are needed. accelerate itself is
never imported: its hooks are known by what they have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from canonical_saver.errors import WeightsError
from canonical_saver.weights.tensors import PIECE, LocalSlice, ModelTensor, elements


class _Last:
    """The tensor that was read last: pieces of one tensor are requested one after the other."""

    def __init__(self) -> None:
        self.of: Stored | None = None
        self.tensor: torch.Tensor | None = None


@dataclass(frozen=True)
class Stored:
    """A tensor that a hook has.

    Attributes:
        place: equal for one tensor of one mapping, and only for it.
        weights: the hook's mapping from names to tensors.
        key: the tensor's name in it.
        like: the parameter or buffer on the meta device that stands for it.
    """

    place: tuple[int, str]
    weights: Mapping[str, torch.Tensor] = field(compare=False)
    key: str = field(compare=False)
    like: torch.Tensor = field(compare=False)
    last: _Last = field(compare=False, repr=False)

    def load(self) -> torch.Tensor:
        """Read the tensor; it stays in memory until another one is read.

        Raises:
            WeightsError: it is not what the parameter is.
        """
        if self.last.of != self or self.last.tensor is None:
            self.last.tensor = None  # room for the next one
            tensor = self.weights[self.key].detach()
            if tensor.numel() != self.like.numel():
                raise WeightsError(
                    f"'{self.key}': expected {self.like.numel()} elements in its offloaded data, "
                    f"found {tensor.numel()}; was the offload folder changed?"
                )
            self.last.tensor = tensor.to(self.like.dtype).reshape(self.like.shape)
            self.last.of = self
        return self.last.tensor

    def in_memory(self) -> torch.Tensor | None:
        """The tensor, if it is in main memory as it is."""
        inside = self.weights if isinstance(self.weights, dict) else None
        held: Any = getattr(self.weights, "state_dict", {}) if inside is None else inside
        tensor: torch.Tensor | None = held.get(self.key)
        if tensor is None or (tensor.dtype, tensor.shape) != (self.like.dtype, self.like.shape):
            return None
        return tensor

    def file(self) -> Path | None:
        """The file that has the tensor, if accelerate's index names one."""
        index: Any = getattr(self.weights, "index", {})
        if self.key not in index:
            return None
        there = index[self.key].get("safetensors_file")
        folder: Any = getattr(self.weights, "save_folder", None)
        return Path(there or f"{folder}/{self.key}.dat")


def find(modules: Iterable[nn.Module]) -> dict[int, Stored]:
    """Find all tensors that are offloaded.

    Args:
        modules: modules that may have hooks.

    Returns:
        By the ids of parameters and buffers on the meta device, where their data is.
    """
    found: dict[int, Stored] = {}
    known: dict[int, frozenset[str]] = {}
    last = _Last()
    hooks = [(module, hook) for module in modules for hook in _offloading(module)]
    for module, hook in hooks:
        for name in hook.original_devices:
            like = _tensor(module, name)
            if like is None or not like.is_meta or id(like) in found:
                continue
            weights, key = _origin(hook.weights_map, name)
            if id(weights) not in known:
                known[id(weights)] = frozenset(weights)
            if key in known[id(weights)]:
                found[id(like)] = Stored((id(weights), key), weights, key, like, last)
    return found


def model_tensor(stored: Stored) -> ModelTensor:
    """Describe an offloaded tensor, which every rank has complete.

    Raises:
        WeightsError: the file that has it is gone.
    """
    like = stored.like
    tensor = stored.in_memory()
    if tensor is not None:
        # Tied tensors lie at one place; an empty one lies nowhere.
        identity = (tensor.data_ptr(), tuple(tensor.stride())) if tensor.numel() else stored
        data = tensor.detach()
        local_slice = LocalSlice(0, data.numel(), data)
        return ModelTensor(identity, data.dtype, tuple(data.shape), (local_slice,), replicated=True)
    file = stored.file()
    if file is not None and not file.is_file():
        raise WeightsError(
            f"expected the offloaded data in {file}, found no such file; was the offload folder "
            "removed?"
        )
    local_slice = LocalSlice(0, like.numel(), like.detach(), load=stored.load)
    return ModelTensor(stored, like.dtype, tuple(like.shape), (local_slice,), replicated=True)


def equal(one: ModelTensor, other: ModelTensor) -> bool:
    """Whether two offloaded tensors have the same bytes, as the copies of tied ones do.

    Offloading to files copies a tensor for each of its names.
    """
    first, second = one.identity, other.identity
    if not (isinstance(first, Stored) and isinstance(second, Stored)):
        return False
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    # Apart, so that each keeps its own tensor in memory while they are compared.
    second = Stored(second.place, second.weights, second.key, second.like, _Last())
    step = max(1, PIECE // max(1, one.dtype.itemsize))
    slices = [LocalSlice(0, s.like.numel(), s.like, load=s.load) for s in (first, second)]
    return all(
        torch.equal(
            *(
                elements(local_slice, start, min(step, one.numel - start)).to("cpu")
                for local_slice in slices
            )
        )
        for start in range(0, one.numel, step)
    )


def _offloading(module: nn.Module) -> Iterator[Any]:
    """The hooks of a module that have its tensors, in a chain of hooks too."""
    outer: Any = vars(module).get("_hf_hook")
    for hook in getattr(outer, "hooks", (outer,)):
        if getattr(hook, "offload", False) and getattr(hook, "weights_map", None) is not None:
            yield hook


def _tensor(module: nn.Module, name: str) -> torch.Tensor | None:
    path, _, own = name.rpartition(".")
    try:
        owner = module.get_submodule(path)
    except AttributeError:
        return None  # the module was replaced since
    found = owner._parameters.get(own)
    return owner._buffers.get(own) if found is None else found


def _origin(weights: Any, name: str) -> tuple[Any, str]:
    """The mapping below those that only put a prefix before each name."""
    while hasattr(weights, "dataset") and hasattr(weights, "prefix"):
        weights, name = weights.dataset, f"{weights.prefix}{name}"
    return weights, name
