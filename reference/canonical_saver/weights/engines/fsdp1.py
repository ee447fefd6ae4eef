"""FSDP1: parameters flattened into one tensor a wrapped module, cut into equal shards.

The layout is that of ``torch/distributed/fsdp/_flat_param.py``: ``_shard_param_infos`` says which
elements of each original parameter lie in this rank's shard, alignment padding already skipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.fsdp._flat_param import FlatParameter

from canonical_saver.weights.tensors import LocalSlice, ModelTensor, Replica


def applies(parameter: torch.Tensor | None) -> bool:
    """Whether a parameter is a flat parameter, which has no name of its own in a save."""
    return isinstance(parameter, FlatParameter)


def find(roots: tuple[nn.Module, ...]) -> dict[int, dict[str, ModelTensor]]:
    """Find all original parameters that live in flat parameters.

    Args:
        roots: modules in which to look for FSDP instances.

    Returns:
        For each module, by its id, its own parameters' names and where they lie.
    """
    found: dict[int, dict[str, ModelTensor]] = {}
    seen: set[int] = set()
    for root in roots:
        for module in root.modules():
            for handle in _handles(module):
                if id(handle) not in seen:
                    seen.add(id(handle))
                    _read_handle(module, handle, found)
    return found


def _handles(module: Any) -> list[Any]:
    """The handles that an FSDP instance knows: its own and, after a forward pass, all of its root.

    The root itself may not have been handed over.
    """
    if not isinstance(module, FullyShardedDataParallel):
        return []
    own = [] if module._handle is None else [module._handle]
    return [*own, *getattr(module._exec_order_data, "all_handles", ())]


def lost(module: nn.Module, found: Mapping[int, Mapping[str, ModelTensor]]) -> str | None:
    """The name of a parameter of a module that lies in a flat parameter out of reach, if one does.

    Args:
        module: the module, without its wrapper.
        found: what :func:`find` found.
    """
    if not vars(module).get("_is_fsdp_managed_module"):
        return None
    # With ``use_orig_params`` they are parts of the shard, otherwise views of the flat parameter.
    own = [
        k
        for k, v in module._parameters.items()
        if getattr(v, "_fsdp_flattened", False) and not applies(v)
    ]
    own += [k for k, v in vars(module).items() if isinstance(v, torch.Tensor) and applies(v._base)]
    known = found.get(id(module), {})
    return next((k for k in own if k not in known), None)


def trainable(roots: tuple[nn.Module, ...]) -> dict[int, set[str]]:
    """Find the parameters that require a gradient among those in flat parameters.

    Without ``use_orig_params`` the parameters of one flat parameter require one all together; with
    it, each has kept its own setting.

    Args:
        roots: modules in which to look for FSDP instances.

    Returns:
        For each module, by its id, the names of its own parameters.
    """
    found: dict[int, set[str]] = {}
    for root in roots:
        for module in root.modules():
            handle = module._handle if isinstance(module, FullyShardedDataParallel) else None
            if handle is None:
                continue
            flat = handle.flat_param
            kept = flat._params or [flat] * len(flat._param_infos)
            for owner, parameter in zip(flat._param_infos, kept, strict=True):
                if parameter.requires_grad:
                    found.setdefault(id(owner.module), set()).add(owner.param_name)
            for shared in flat._shared_param_infos:
                if shared.prim_param_name in found.get(id(shared.prim_module), ()):
                    found.setdefault(id(shared.module), set()).add(shared.param_name)
    return found


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
