"""How each engine holds the model that is saved; sharded ones are built shard by shard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from transformers import LlamaConfig

from benchmarks import models
from saver_conformance.workload import cpu_patches

ZERO: dict[str, Any] = {
    "train_micro_batch_size_per_gpu": 1,
    "bf16": {"enabled": True},
    "zero_optimization": {
        "stage": 3,
        "stage3_param_persistence_threshold": 0,
        "stage3_gather_16bit_weights_on_model_save": True,
    },
}


@dataclass(frozen=True)
class Trained:
    """A model as an engine holds it.

    Attributes:
        engine: the name of the engine.
        model: the module itself.
        wrapped: what a trainer would call the wrapped model; the module itself without a wrapper.
        size: bytes of all its tensors.
    """

    engine: str
    model: Any
    wrapped: Any
    size: int


def build(engine: str, wanted: LlamaConfig) -> Trained:
    """Build a model in an engine; collective, the process group is there."""
    if engine != "single":
        cpu_patches.enable()
    shapes = models.empty(wanted)
    size = sum(p.numel() * p.element_size() for p in shapes.parameters())
    model, wrapped = _ENGINES[engine](shapes, wanted)
    return Trained(engine, model, wrapped, size)


def _single(model: Any, wanted: LlamaConfig) -> tuple[Any, Any]:
    models.materialize(model)
    return model, model


def _ddp(model: Any, wanted: LlamaConfig) -> tuple[Any, Any]:
    models.materialize(model)
    return model, torch.nn.parallel.DistributedDataParallel(model)


def _fsdp1(model: Any, wanted: LlamaConfig) -> tuple[Any, Any]:
    from torch.distributed.fsdp import FullyShardedDataParallel
    from torch.distributed.fsdp.wrap import ModuleWrapPolicy

    def init(module: torch.nn.Module) -> None:
        module.to_empty(device="cpu", recurse=False)
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            models.fill(tensor)

    wrapped = FullyShardedDataParallel(
        model,
        auto_wrap_policy=ModuleWrapPolicy({type(layer) for layer in model.model.layers}),
        device_id=torch.device("cpu"),
        param_init_fn=init,
        use_orig_params=True,
    )
    return model, wrapped


def _fsdp2(model: Any, wanted: LlamaConfig) -> tuple[Any, Any]:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    model.to_empty(device="cpu")
    for parameter in model.parameters():
        models.fill(parameter.to_local())
    for buffer in model.buffers():
        models.fill(buffer)
    return model, model


def _zero2(model: Any, wanted: LlamaConfig) -> tuple[Any, Any]:
    import deepspeed

    models.materialize(model)
    config = ZERO | {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}}
    config |= {"zero_force_ds_cpu_optimizer": False, "zero_allow_untested_optimizer": True}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return model, deepspeed.initialize(model=model, optimizer=optimizer, config=config)[0]


def _zero3(shapes: Any, wanted: LlamaConfig) -> tuple[Any, Any]:
    import deepspeed
    from transformers import LlamaForCausalLM
    from transformers.initialization import no_init_weights

    del shapes
    with no_init_weights(), deepspeed.zero.Init(config_dict_or_path=ZERO, dtype=models.DTYPE):
        model = LlamaForCausalLM(wanted)
    engine = deepspeed.initialize(model=model, config=ZERO)[0]
    # Left out where there is no optimizer, whose state would take several times the memory.
    engine._configure_checkpointing()
    for parameter in model.parameters():
        models.fill(parameter.ds_tensor)
    return model, engine


_ENGINES = {
    "single": _single,
    "ddp": _ddp,
    "fsdp1": _fsdp1,
    "fsdp2": _fsdp2,
    "zero2": _zero2,
    "zero3": _zero3,
}
