"""DDP and DeepSpeed below ZeRO-3: every rank holds the whole model, and the engine vouches for it.

Both make the replicas equal when they take a model over, and reduce the gradients over all of them.
A tensor that they look after cannot be a part of something larger that other ranks hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from canonical_saver.weights.engines.deepspeed_classes import is_a


def synchronized(modules: Iterable[nn.Module]) -> frozenset[int]:
    """The ids of all parameters and buffers that an engine made equal on all ranks.

    Args:
        modules: modules among which engines may be.
    """
    found: set[int] = set()
    for module in modules:
        if isinstance(module, DistributedDataParallel):
            found.update(id(tensor) for tensor in _of_ddp(module))
        elif is_a(module, "DeepSpeedEngine"):
            found.update(id(tensor) for tensor in _of_deepspeed(module))
    return frozenset(found)


def _of_ddp(module: DistributedDataParallel) -> Iterator[torch.Tensor]:
    if not _of_all_ranks(module.process_group):
        return
    for named in (module.module.named_parameters, module.module.named_buffers):
        yield from (tensor for name, tensor in named() if name not in module.parameters_to_ignore)


def _of_deepspeed(engine: Any) -> Iterator[torch.Tensor]:
    """Its parameters, except those of experts and of ``OptimizedLinear``, as it broadcasts them."""
    if not _of_all_ranks(getattr(engine, "seq_data_parallel_group", None)):
        return
    for parameter in engine.module.parameters():
        if getattr(parameter, "allreduce", True) and not hasattr(parameter, "ds_optim_param"):
            yield parameter


def _of_all_ranks(group: dist.ProcessGroup | None) -> bool:
    return group is not None and dist.get_world_size(group) == dist.get_world_size()
