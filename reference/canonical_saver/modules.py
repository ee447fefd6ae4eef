"""The module tree without its wrappers.

Wrappers are known by what they are, never by the text of a name: a model's own module may well be
called ``module`` or ``default``.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import ActivationWrapper
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.nn.parallel import DataParallel, DistributedDataParallel


def unwrap(module: nn.Module) -> nn.Module:
    """Take off every wrapper around a module: DDP, FSDP1, DeepSpeed, checkpointing, compile."""
    while (inner := _wrapped(module)) is not None:
        module = inner
    return module


def _wrapped(module: nn.Module) -> nn.Module | None:
    children = module._modules
    if isinstance(module, DistributedDataParallel | DataParallel):
        return children["module"]
    if isinstance(module, FullyShardedDataParallel):
        return children["_fsdp_wrapped_module"]
    if isinstance(module, ActivationWrapper):
        return children["_checkpoint_wrapped_module"]
    # FSDP2 puts a class of its own before that of a compiled model.
    kinds = type(module).__mro__
    if any(
        k.__module__.startswith("torch._dynamo") and k.__name__ == "OptimizedModule" for k in kinds
    ):
        return children["_orig_mod"]
    if any(kind.__name__ == "DeepSpeedEngine" for kind in kinds):
        return children["module"]
    return None


def named_modules(root: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Walk a model in state-dict order.

    A module that is reachable by several names is given once for each of them, as in a state dict.

    Yields:
        The canonical dotted name and the unwrapped module; the root first, named "".
    """
    yield from _walk("", root)


def _walk(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    module = unwrap(module)
    yield name, module
    for child_name, child in module._modules.items():
        # What a quantization-aware training adds to measure is no part of the model.
        if child is not None and not type(child).__module__.startswith(
            "torchao.quantization.qat.fake"
        ):
            yield from _walk(f"{name}.{child_name}" if name else child_name, child)
