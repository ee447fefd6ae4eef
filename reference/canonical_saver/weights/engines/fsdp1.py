"""FSDP1: parameters flattened into one tensor a wrapped module, cut into equal shards.

The layout is that of ``torch/distributed/fsdp/_flat_param.py``: ``_shard_param_infos`` says which
elements of each original parameter lie in this rank's shard, alignment padding already skipped.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.fsdp._flat_param import FlatParameter

from canonical_saver.errors import WeightsError
from canonical_saver.weights.engines.replica import Replica
from canonical_saver.weights.tensors import LocalSlice, ModelTensor


class FlatParameters:
    """The original parameters that live in flat parameters.

    Args:
        modules: modules among which FSDP instances may be.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._places: dict[int, dict[str, ModelTensor]] = {}
        self._trainable: dict[int, set[str]] = {}
        seen: set[int] = set()
        for module in modules:
            if not isinstance(module, FullyShardedDataParallel):
                continue
            for handle in _handles(module):
                if id(handle) not in seen:
                    seen.add(id(handle))
                    _read_handle(module, handle, self._places)
            if module._handle is not None:
                _find_trainable(module._handle.flat_param, self._trainable)

    def of(self, module: nn.Module, place: str) -> dict[str, ModelTensor]:
        """Where a module's own parameters lie, by their names in it.

        Args:
            module: the module.
            place: its canonical name, for the error.

        Raises:
            WeightsError: one of them lies in a flat parameter out of reach.
        """
        known = self._places.get(id(module), {})
        if vars(module).get("_is_fsdp_managed_module"):
            lost = next((name for name in _flattened(module) if name not in known), None)
            if lost is not None:
                raise WeightsError(
                    f"'{place}{'.' if place else ''}{lost}': expected the FSDP instance that holds "
                    f"this parameter, found only the {type(module).__name__} inside it; pass "
                    "the model that FSDP returned"
                )
        return known

    def trainable(self, module: nn.Module) -> set[str]:
        """The names of a module's own parameters in flat ones that require a gradient.

        Without ``use_orig_params`` the parameters of one flat parameter require one all together;
        with it, each has kept its own setting.
        """
        return self._trainable.get(id(module), set())

    @staticmethod
    def holds_itself(parameter: torch.Tensor) -> bool:
        """Whether a parameter is a flat one, which has no name of its own in a save."""
        return isinstance(parameter, FlatParameter)


def _handles(module: Any) -> list[Any]:
    """The handles that an FSDP instance knows: its own and, after a forward pass, all of its root.

    The root itself may not have been passed.
    """
    own = [] if module._handle is None else [module._handle]
    return [*own, *getattr(module._exec_order_data, "all_handles", ())]


def _flattened(module: nn.Module) -> list[str]:
    """The names of a module's own parameters that lie in flat ones.

    With ``use_orig_params`` they are parts of the shard, otherwise views of the flat parameter.
    """
    parts = [
        name
        for name, value in module._parameters.items()
        if getattr(value, "_fsdp_flattened", False) and not isinstance(value, FlatParameter)
    ]
    return parts + [
        name
        for name, value in vars(module).items()
        if isinstance(value, torch.Tensor) and isinstance(value._base, FlatParameter)
    ]


def _find_trainable(flat: Any, found: dict[int, set[str]]) -> None:
    kept = flat._params or [flat] * len(flat._param_infos)
    for owner, parameter in zip(flat._param_infos, kept, strict=True):
        if parameter.requires_grad:
            found.setdefault(id(owner.module), set()).add(owner.param_name)
    for shared in flat._shared_param_infos:
        if shared.prim_param_name in found.get(id(shared.prim_module), ()):
            found.setdefault(id(shared.module), set()).add(shared.param_name)


def _read_handle(module: Any, handle: Any, found: dict[int, dict[str, ModelTensor]]) -> None:
    flat = handle.flat_param
    sharded = handle.uses_sharded_strategy
    # _local_shard is in the original dtype; _mp_shard is a low-precision copy.
    shard = getattr(flat, "_local_shard", None) if sharded else flat.data
    if shard is None:
        shard = flat.data
    shard = shard.detach()
    # Sharded in groups of some ranks, each group holds the whole; the one with rank 0 writes.
    group = dist.get_process_group_ranks(handle.process_group)
    part = ""
    if sharded and len(group) < dist.get_world_size():
        part = f"part {dist.get_rank(handle.process_group)} of {len(group)}"
    for index, (owner, shape, info) in enumerate(
        zip(flat._param_infos, flat._shapes, flat._shard_param_infos, strict=True)
    ):
        slices: tuple[LocalSlice, ...] = ()
        replica = None
        if info.in_shard:
            start, length = info.intra_param_start_idx, info.numel_in_shard
            slices = (LocalSlice(start, length, shard, info.offset_in_shard),)
            replica = Replica(part, slices[0]) if part else None
            if part and 0 not in group:
                slices = ()
        identity = (id(handle), index)
        model_tensor = ModelTensor(
            identity, shard.dtype, tuple(shape), slices, replicated=not sharded, replica=replica
        )
        found.setdefault(id(owner.module), {})[owner.param_name] = model_tensor
    for shared in flat._shared_param_infos:
        model_tensor = found[id(shared.prim_module)][shared.prim_param_name]
        found.setdefault(id(shared.module), {})[shared.param_name] = model_tensor
