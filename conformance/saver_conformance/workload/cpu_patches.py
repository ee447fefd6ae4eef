"""Lets engines that expect an accelerator train on a CPU; off when one is there.

Some pieces of upstream behaviour are in the way, and nothing else is changed. None of them takes
part in what a saver does, except where the comment says so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def enable() -> None:
    """Apply the enablements to this process; a second call, or an accelerator, changes nothing."""
    if torch.cuda.is_available() or getattr(enable, "applied", False):
        return
    os.environ["DS_ACCELERATOR"] = "cpu"
    _fsdp_state()
    _flat_parameter_offload()
    _unpinned_offload()
    _mesh_without_accelerator()
    enable.applied = True  # type: ignore[attr-defined]


def _fsdp_state() -> None:
    """Keep accelerate from dropping FSDP, and FSDP1 from getting an indexed CPU device.

    ``AcceleratorState.__init__`` (accelerate/state.py) honours ``fsdp_plugin`` for accelerators
    only; torch's FSDP1 accepts ``cpu`` but not ``cpu:0`` as ``device_id``.
    """
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedType

    original = AcceleratorState.__init__

    def init(self: Any, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
        fresh = not AcceleratorState._shared_state
        original(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fresh and fsdp_plugin is not None:
            if self._mixed_precision != "no":
                fsdp_plugin.set_mixed_precision(self._mixed_precision)
            self.fsdp_plugin = fsdp_plugin
            self.distributed_type = DistributedType.FSDP
            self.device = torch.device("cpu")
            for name in ("distributed_type", "device"):
                PartialState._shared_state[name] = getattr(self, name)

    AcceleratorState.__init__ = init


def _flat_parameter_offload() -> None:
    """Make FSDP1's offload of an unsharded flat parameter a no-op.

    A full state dict with ``offload_to_cpu`` moves the flat parameter to the CPU and frees the old
    storage; on a CPU both are the same memory and the process dies
    (``FlatParamHandle.to_cpu``, torch/distributed/fsdp/_flat_param.py).
    """
    from torch.distributed.fsdp._flat_param import FlatParamHandle

    @contextmanager
    def stay(self: FlatParamHandle) -> Iterator[None]:
        yield

    FlatParamHandle.to_cpu = stay  # type: ignore[method-assign]


def _unpinned_offload() -> None:
    """Let FSDP keep shards in host memory that is not pinned: only an accelerator pins memory.

    FSDP1 pins when it makes its shards (``init_flat_param_attributes``,
    torch/distributed/fsdp/_flat_param.py), FSDP2 unless its policy says otherwise. FSDP1 waits for
    the stream that copies gradients (``_post_backward_final_callback``, _runtime_utils.py), and a
    CPU's has nothing to wait for.
    """
    from torch.distributed.fsdp import CPUOffloadPolicy
    from torch.distributed.fsdp._flat_param import FlatParamHandle

    original = FlatParamHandle.init_flat_param_attributes

    def init(self: FlatParamHandle) -> None:
        pin = torch.Tensor.pin_memory
        torch.Tensor.pin_memory = lambda tensor: tensor  # type: ignore[method-assign, assignment, misc]
        try:
            original(self)
        finally:
            torch.Tensor.pin_memory = pin  # type: ignore[method-assign]

    FlatParamHandle.init_flat_param_attributes = init  # type: ignore[method-assign]
    CPUOffloadPolicy.__init__.__defaults__ = (False,)
    if not hasattr(torch.cpu.Stream, "synchronize"):
        torch.cpu.Stream.synchronize = lambda stream: None  # type: ignore[attr-defined]


def _mesh_without_accelerator() -> None:
    """Let accelerate take a mesh, which a tensor-parallel model brings, for processes on a CPU.

    ``ParallelismConfig._validate_accelerator`` (accelerate/parallelism_config.py) knows several
    devices of every kind but this one; nothing that it guards depends on the kind.
    """
    from accelerate.parallelism_config import ParallelismConfig
    from accelerate.utils import DistributedType

    original = ParallelismConfig._validate_accelerator

    class SeveralDevices:
        multi_device = True

        def __init__(self, accelerator: Any) -> None:
            self._accelerator = accelerator

        def __getattr__(self, name: str) -> Any:
            return getattr(self._accelerator, name)

    def validate(self: ParallelismConfig, accelerator: Any) -> None:
        cpus = accelerator.distributed_type == DistributedType.MULTI_CPU
        original(self, SeveralDevices(accelerator) if cpus else accelerator)

    ParallelismConfig._validate_accelerator = validate
