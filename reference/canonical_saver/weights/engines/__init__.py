"""Where each training engine keeps a parameter's bytes.

The engines are told apart by what the parameters are, not by a configuration: flat parameters
(FSDP1), distributed tensors (FSDP2, HSDP, tensor parallelism), DeepSpeed's partitions (ZeRO-3), or
plain tensors, which every rank holds complete (one process, DDP, ZeRO-1 and ZeRO-2). Each module
here answers one question: which flat ranges of this tensor does this rank hold? Nothing is
gathered.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import nn

from canonical_saver.errors import WeightsError
from canonical_saver.weights.engines import (
    autotp,
    bnb,
    dtensor,
    float8,
    fsdp1,
    offload,
    replicated,
    zero3,
)
from canonical_saver.weights.tensors import LocalSlice, ModelTensor, Replica, whole


class Engines:
    """Finds the tensors of a model's modules, whatever engine holds them.

    Args:
        roots: all modules in which wrappers may be found.
        rank: this rank among all.
    """

    def __init__(self, roots: tuple[nn.Module, ...], rank: int) -> None:
        self._rank = rank
        for root in roots:
            dtensor.reshard(root)
        self._flat = fsdp1.find(roots)
        self._offloaded = offload.find(roots)
        self._synchronized = replicated.synchronized(roots)
        self._trainable_flat = fsdp1.trainable(roots)

    def parameters(self, module: nn.Module, place: str = "") -> Iterator[tuple[str, ModelTensor]]:
        """Yield the module's own parameters, in state-dict order, by their names in it.

        Args:
            module: the module.
            place: its canonical name, for errors.

        Raises:
            WeightsError: a parameter's bytes cannot be found; names it.
        """
        lost = fsdp1.lost(module, self._flat)
        if lost is not None:
            raise WeightsError(
                f"'{dotted(place, lost)}': expected the FSDP instance that holds this parameter, "
                f"found only the {type(module).__name__} inside it; pass the model that FSDP "
                "returned"
            )
        names = [name for name, value in module._parameters.items() if value is not None]
        names += [name for name in self._flat.get(id(module), {}) if name not in names]
        for name in names:
            model_tensor = self._flat.get(id(module), {}).get(name)
            if model_tensor is None:
                with named(dotted(place, name)):
                    model_tensor = self._parameter(module, name)
            elif model_tensor.replicated:
                model_tensor = self.on_first_rank(model_tensor, module._parameters.get(name))
            if model_tensor is not None:
                yield name, model_tensor

    def buffers(self, module: nn.Module, place: str = "") -> Iterator[tuple[str, ModelTensor]]:
        """Yield the module's own persistent buffers, see :meth:`parameters`."""
        for name, value in module._buffers.items():
            if name in module._non_persistent_buffers_set:
                continue
            with named(dotted(place, name)):
                model_tensor = self.tensor(value, buffer=True)
            if model_tensor is not None:
                yield name, model_tensor

    def trainable(self, module: nn.Module) -> Iterator[str]:
        """Yield the names of the module's own parameters that require a gradient."""
        flat = self._trainable_flat.get(id(module), set[str]())
        for name, value in module._parameters.items():
            if value is not None and value.requires_grad and not fsdp1.applies(value):
                flat = flat | {name}
        yield from flat

    @property
    def first(self) -> bool:
        """Whether this is the rank that speaks for all."""
        return self._rank == 0

    def extras(self, module: nn.Module, known: set[str]) -> Iterator[tuple[str, ModelTensor]]:
        """Yield tensors that a module only adds while saving, as bitsandbytes' quantization state.

        Args:
            module: the module.
            known: names that are parameters or buffers of it.
        """
        for name, value in bnb.quantization_state(module, known):
            yield name, self.on_first_rank(whole(value, (id(module), name)))

    def tensor(
        self, value: torch.Tensor | None, identity: object = None, *, buffer: bool = False
    ) -> ModelTensor | None:
        """Describe one tensor of a state dict; None for a flat parameter, which is in none.

        Args:
            value: the tensor; it has to live as long as the description, or have an identity.
            identity: equal for two names of one tensor, and only for them.
            buffer: whether it is a buffer.

        Raises:
            WeightsError: its bytes cannot be found.
        """
        if value is None or fsdp1.applies(value):
            return None
        if zero3.applies(value):
            return zero3.model_tensor(value)
        if dtensor.applies(value):
            return dtensor.model_tensor(value)
        stored = self._offloaded.get(id(value))
        if stored is not None:
            return self.on_first_rank(offload.model_tensor(stored), value, buffer=buffer)
        plain = whole(float8.unwrapped(value), identity)
        return self.on_first_rank(plain, value, buffer=buffer)

    def _parameter(self, module: nn.Module, name: str) -> ModelTensor | None:
        held = module._parameters[name]
        if held is not None and autotp.applies(module):
            return self.on_first_rank(autotp.model_tensor(module, name, held), held)
        value = bnb.unpacked(module, name)
        if value is held:
            return self.tensor(value)
        # What is unpacked is made anew each time.
        return None if value is None else self.on_first_rank(whole(value, id(held)), held)

    def on_first_rank(
        self, model_tensor: ModelTensor, held: torch.Tensor | None = None, *, buffer: bool = False
    ) -> ModelTensor:
        """Let rank 0 alone write a tensor that every rank is said to hold complete.

        Args:
            model_tensor: the tensor; any other is returned as it is.
            held: the parameter or buffer that it is of.
            buffer: whether it is a buffer.
        """
        if not model_tensor.replicated or not model_tensor.slices:
            return model_tensor
        (local_slice,) = model_tensor.slices
        replica: Replica | None = Replica(
            "whole", local_slice, buffer, id(held) in self._synchronized
        )
        if local_slice.data.is_meta and local_slice.load is None:
            replica = None  # a rank that only knows the shape, for another one that has the bytes
        slices: tuple[LocalSlice, ...] = model_tensor.slices if self._rank == 0 else ()
        return replace(model_tensor, slices=slices, replica=replica)


def dotted(place: str, name: str) -> str:
    """The canonical name of a module's tensor."""
    return f"{place}.{name}" if place else name


@contextmanager
def named(name: str) -> Iterator[None]:
    """Put the name of a tensor before an error about it."""
    try:
        yield
    except WeightsError as error:
        raise WeightsError(f"'{name}': {error}") from error
