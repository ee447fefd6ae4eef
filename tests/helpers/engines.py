"""How each engine takes a model."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn

ENGINES = ("ddp", "fsdp1", "fsdp1-flat", "fsdp2", "hsdp", "zero1", "zero2", "zero3")


def layers(model: nn.Module) -> list[nn.Module]:
    """The blocks of a transformer."""
    names = ("DecoderLayer", "EncoderLayer", "T5Block")
    return [module for module in model.modules() if type(module).__name__.endswith(names)]


def wrap(engine: str, model: nn.Module) -> Any:
    """Give the model to an engine; returns what a trainer would call the wrapped model."""
    if engine == "ddp":
        return nn.parallel.DistributedDataParallel(model)
    if engine.startswith("fsdp1"):
        from torch.distributed.fsdp import FullyShardedDataParallel
        from torch.distributed.fsdp.wrap import ModuleWrapPolicy

        return FullyShardedDataParallel(
            model,
            auto_wrap_policy=ModuleWrapPolicy({type(layer) for layer in layers(model)}),
            device_id=torch.device("cpu"),
            use_orig_params=engine == "fsdp1",
        )
    if engine in ("fsdp2", "hsdp"):
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        shape = (2, dist.get_world_size() // 2) if engine == "hsdp" else (dist.get_world_size(),)
        names = ("replicate", "shard")[-len(shape) :]
        mesh = init_device_mesh("cpu", shape, mesh_dim_names=names)
        for layer in layers(model):
            fully_shard(layer, mesh=mesh)
        return fully_shard(model, mesh=mesh)
    import deepspeed

    config = {
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": {
            "stage": int(engine[-1]),
            "stage3_param_persistence_threshold": 0,
            "offload_optimizer": {"device": "cpu"},
        },
        "zero_force_ds_cpu_optimizer": False,
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True}},
    }
    return deepspeed.initialize(model=model, config=config)[0]
