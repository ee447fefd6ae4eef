"""Lets a framework's own command train where no accelerator is, with engines that expect one."""

from __future__ import annotations

from typing import Any


def enable() -> None:
    """Apply what the suite's own ranks need, and what frameworks ask for by name besides.

    An accelerator changes nothing.
    """
    import torch

    from saver_conformance.workload import cpu_patches

    cpu_patches.enable()
    if not torch.cuda.is_available():
        _meshes_of_cpus()


def _meshes_of_cpus() -> None:
    """Make a mesh of CPUs where one of CUDA devices is asked for.

    axolotl, for one, names the type of device in its code (axolotl/utils/distributed.py).
    """
    from torch.distributed import device_mesh

    original = device_mesh.init_device_mesh

    def init(device_type: str, *args: Any, **kwargs: Any) -> device_mesh.DeviceMesh:
        return original("cpu" if device_type == "cuda" else device_type, *args, **kwargs)

    device_mesh.init_device_mesh = init
