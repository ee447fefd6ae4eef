"""The tensors of a model that an engine spreads over ranks, or holds in a way of its own.

Each module beside this one answers for one engine: which flat ranges of this tensor does this rank
hold? It is imported for a model that is held in its way.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
from torch.distributed.tensor import DTensor

from canonical_saver.weights.engines import Engines, dotted, named
from canonical_saver.weights.engines.replica import Replica
from canonical_saver.weights.module_tree import saved_by_bitsandbytes
from canonical_saver.weights.tensors import LocalSlice, ModelTensor, whole

if TYPE_CHECKING:
    from canonical_saver.weights.engines.fsdp1 import FlatParameters
    from canonical_saver.weights.engines.offload import Stored


class SpreadTensors(Engines):
    """Finds the tensors of a model's modules, whatever engine holds them.

    Args:
        modules: all modules in which wrappers may be found.
        rank: this rank among all.
    """

    def __init__(self, modules: Sequence[nn.Module], rank: int) -> None:
        super().__init__(rank)
        for module in modules:
            if isinstance(module, FSDPModule):
                module.reshard()  # to hold its shard alone, as between two training steps
        self._flat: FlatParameters | None = None
        if any(map(_is_flattened, modules)):
            from canonical_saver.weights.engines import fsdp1

            self._flat = fsdp1.FlatParameters(modules)
        self._offloaded: dict[int, Stored] = {}
        if any("_hf_hook" in vars(module) for module in modules):
            from canonical_saver.weights.engines import offload

            self._offloaded = offload.find(modules)
        self._synchronized = frozenset[int]()
        if torch.distributed.is_initialized():
            from canonical_saver.weights.engines import replicated

            self._synchronized = replicated.synchronized(modules)

    def parameters(self, module: nn.Module, place: str = "") -> Iterator[tuple[str, ModelTensor]]:
        """See :meth:`Engines.parameters`."""
        flat = {} if self._flat is None else self._flat.of(module, place)
        names = [name for name, value in module._parameters.items() if value is not None]
        names += [name for name in flat if name not in names]
        for name in names:
            model_tensor = flat.get(name)
            if model_tensor is None:
                with named(dotted(place, name)):
                    model_tensor = self._parameter(module, name)
            elif model_tensor.replicated:
                model_tensor = self.on_first_rank(model_tensor, module._parameters.get(name))
            if model_tensor is not None:
                yield name, model_tensor

    def trainable(self, module: nn.Module) -> Iterator[str]:
        """See :meth:`Engines.trainable`."""
        names = set[str]() if self._flat is None else self._flat.trainable(module)
        for name, value in module._parameters.items():
            if value is not None and value.requires_grad and not self._is_flat(value):
                names = names | {name}
        yield from names

    def persistent(self, module: nn.Module, place: str) -> dict[str, ModelTensor]:
        """See :meth:`Engines.persistent`."""
        found = super().persistent(module, place)
        if saved_by_bitsandbytes(module):
            from canonical_saver.weights.engines import bnb

            for name, value in bnb.quantization_state(module, set(found)):
                found[name] = self.on_first_rank(whole(value, (id(module), name)))
        return found

    def tensor(
        self, value: torch.Tensor | None, identity: object = None, *, buffer: bool = False
    ) -> ModelTensor | None:
        """See :meth:`Engines.tensor`."""
        if value is None or self._is_flat(value):
            return None
        if hasattr(value, "ds_id") and hasattr(value, "ds_tensor"):
            from canonical_saver.weights.engines import zero3

            return zero3.model_tensor(value)
        if isinstance(value, DTensor):
            from canonical_saver.weights.engines import dtensor

            return dtensor.model_tensor(value)
        if id(value) in self._offloaded:
            from canonical_saver.weights.engines import offload

            stored = offload.model_tensor(self._offloaded[id(value)])
            return self.on_first_rank(stored, value, buffer=buffer)
        plain = whole(without_float8(value), identity)
        return self.on_first_rank(plain, value, buffer=buffer)

    def _is_flat(self, value: torch.Tensor) -> bool:
        return self._flat is not None and self._flat.holds_itself(value)

    def _parameter(self, module: nn.Module, name: str) -> ModelTensor | None:
        held = module._parameters[name]
        if held is not None and "deepspeed" in sys.modules:
            from canonical_saver.weights.engines import autotp

            if autotp.applies(module):
                return self.on_first_rank(autotp.model_tensor(module, name, held), held)
        if held is not None and getattr(held, "quant_state", None) is not None:
            from canonical_saver.weights.engines import bnb

            if (unpacked := bnb.unpacked(held)) is not held:  # it is made anew each time
                return self.on_first_rank(whole(unpacked, id(held)), held)
        return self.tensor(held)

    def on_first_rank(
        self, model_tensor: ModelTensor, held: torch.Tensor | None = None, *, buffer: bool = False
    ) -> ModelTensor:
        """See :meth:`Engines.on_first_rank`."""
        if not model_tensor.replicated or not model_tensor.slices:
            return model_tensor
        (local_slice,) = model_tensor.slices
        replica: Replica | None = Replica(
            "whole", local_slice, buffer, id(held) in self._synchronized
        )
        if local_slice.data.is_meta and local_slice.load is None:
            replica = None  # a rank that only knows the shape, for another one that has the bytes
        slices: tuple[LocalSlice, ...] = model_tensor.slices if self.rank == 0 else ()
        return replace(model_tensor, slices=slices, replica=replica)

    def numbered(
        self, model: nn.Module, model_tensors: Mapping[str, ModelTensor]
    ) -> Mapping[str, ModelTensor]:
        """See :meth:`Engines.numbered`."""
        if "deepspeed" not in sys.modules:
            return model_tensors
        from canonical_saver.weights.engines import experts

        return dict(experts.numbered(model, model_tensors.items()))


def without_float8(tensor: Any) -> torch.Tensor:
    """Take off what torchao's float8 training puts around a weight, to gather it in float8.

    The weight inside is in its own precision. torchao itself is never imported.
    """
    if type(tensor).__module__ == "torchao.float8.fsdp_utils":
        tensor = tensor._tensor
    return tensor  # type: ignore[no-any-return]


def _is_flattened(module: nn.Module) -> bool:
    """Whether a module is one of FSDP1's, or one whose parameters may lie in it."""
    fsdp1 = isinstance(module, FullyShardedDataParallel)
    return fsdp1 or "_is_fsdp_managed_module" in vars(module)
