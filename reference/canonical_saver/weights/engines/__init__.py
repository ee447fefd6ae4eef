"""Where each training engine keeps a parameter's bytes.

The engines are told apart by what the parameters are, not by a configuration: flat parameters
(FSDP1), distributed tensors (FSDP2, HSDP, tensor parallelism), DeepSpeed's partitions (ZeRO-3), or
plain tensors, which every rank holds complete (one process, DDP, ZeRO-1 and ZeRO-2). Nothing is
gathered. A model on one process that no engine has touched is described here; ``spread`` has all
others, and one module for each engine.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel

from canonical_saver.errors import WeightsError
from canonical_saver.weights.module_tree import saved_by_bitsandbytes
from canonical_saver.weights.tensors import ModelTensor, whole

_OF_ENGINES = {"_hf_hook", "_is_fsdp_managed_module"}
"""Attributes that engines leave on modules."""


def find_engines(roots: tuple[nn.Module, ...], rank: int) -> Engines:
    """Choose what finds the tensors of a model.

    Args:
        roots: all modules in which wrappers may be found.
        rank: this rank among all.
    """
    modules = list({id(m): m for root in roots for m in root.modules()}.values())
    one_process = not dist.is_initialized() and "deepspeed" not in sys.modules
    if one_process and all(map(_is_untouched, modules)):
        return Engines(rank)
    from canonical_saver.weights.engines.spread import SpreadTensors

    return SpreadTensors(modules, rank)


def _is_untouched(module: nn.Module) -> bool:
    """Whether no engine, and no quantization, has a part in a module."""
    touched = isinstance(module, FullyShardedDataParallel | FSDPModule)
    if touched or _OF_ENGINES & vars(module).keys() or saved_by_bitsandbytes(module):
        return False
    values = (*module._parameters.values(), *module._buffers.values())
    return all(value is None or _is_plain(value) for value in values)


def _is_plain(value: torch.Tensor) -> bool:
    kind = type(value) in (torch.Tensor, nn.Parameter)
    return kind and not any(hasattr(value, name) for name in ("ds_id", "quant_state"))


class Engines:
    """Finds the tensors of a model's modules, which lie complete in this process.

    Args:
        rank: this rank among all.

    Attributes:
        rank: the same.
    """

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def parameters(self, module: nn.Module, place: str = "") -> Iterator[tuple[str, ModelTensor]]:
        """Yield the module's own parameters, in state-dict order, by their names in it.

        Args:
            module: the module.
            place: its canonical name, for errors.

        Raises:
            WeightsError: a parameter's bytes cannot be found; names it.
        """
        yield from self._described(module._parameters, place)

    def persistent(self, module: nn.Module, place: str) -> dict[str, ModelTensor]:
        """All that the module itself has in a state dict, by names in it, see :meth:`parameters`.

        That includes its persistent buffers, and what it only adds while saving, as bitsandbytes'
        quantization state.
        """
        unsaved = module._non_persistent_buffers_set
        buffers = {name: value for name, value in module._buffers.items() if name not in unsaved}
        own = dict(self.parameters(module, place))
        return own | dict(self._described(buffers, place, buffer=True))

    def _described(
        self, values: Mapping[str, torch.Tensor | None], place: str, *, buffer: bool = False
    ) -> Iterator[tuple[str, ModelTensor]]:
        """Describe some tensors of a module, by their names in it."""
        for name, value in values.items():
            with named(dotted(place, name)):
                model_tensor = self.tensor(value, buffer=buffer)
            if model_tensor is not None:
                yield name, model_tensor

    def trainable(self, module: nn.Module) -> Iterator[str]:
        """Yield the names of the module's own parameters that require a gradient."""
        for name, value in module._parameters.items():
            if value is not None and value.requires_grad:
                yield name

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
        if value is None or _is_plain(value):
            return None if value is None else whole(value, identity)
        from canonical_saver.weights.engines.spread import SpreadTensors

        return SpreadTensors([], self.rank).tensor(value, identity, buffer=buffer)

    def on_first_rank(
        self, model_tensor: ModelTensor, held: torch.Tensor | None = None, *, buffer: bool = False
    ) -> ModelTensor:
        """Let rank 0 only write a tensor that every rank is said to hold complete.

        Args:
            model_tensor: the tensor; any other is returned as it is.
            held: the parameter or buffer that it is of.
            buffer: whether it is a buffer.
        """
        return model_tensor

    def numbered(
        self, model: nn.Module, model_tensors: Mapping[str, ModelTensor]
    ) -> Mapping[str, ModelTensor]:
        """Give DeepSpeed's experts their numbers among those of all ranks.

        Args:
            model: the unwrapped model.
            model_tensors: its tensors by their names in memory, in state-dict order.

        Raises:
            WeightsError: the experts are spread in a way that has no names.
        """
        return model_tensors


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
