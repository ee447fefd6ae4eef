"""The module tree without its wrappers.

Wrappers are known by what they are, never by the text of a name: a model's own module may well be
called ``module`` or ``default``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import ActivationWrapper
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

_WRAPPERS: tuple[tuple[tuple[type[nn.Module], ...], str], ...] = (
    ((DistributedDataParallel, DataParallel, AveragedModel), "module"),
    ((FullyShardedDataParallel,), "_fsdp_wrapped_module"),
    ((ActivationWrapper,), "_checkpoint_wrapped_module"),
)
"""Classes of wrappers, and the name that each has for the module inside."""


def saved_by_bitsandbytes(module: nn.Module) -> bool:
    """Whether a module saves its weight by the rules of bitsandbytes, which is never imported."""
    rules: Any = type(module)._save_to_state_dict
    return str(rules.__module__).startswith("bitsandbytes")


def unwrap(module: nn.Module) -> nn.Module:
    """Take off every wrapper around a module: DDP, FSDP1, DeepSpeed, averaging, compile ..."""
    while (inner := _wrapped(module)) is not None:
        module = inner
    return module


def _wrapped(module: nn.Module) -> nn.Module | None:
    for wrappers, child in _WRAPPERS:
        if isinstance(module, wrappers):
            return module._modules[child]
    for kind in type(module).__mro__:  # FSDP2 puts a class of its own before a compiled model's
        if kind.__name__ == "OptimizedModule" and kind.__module__.startswith("torch._dynamo"):
            return module._modules["_orig_mod"]
        if kind.__name__ == "DeepSpeedEngine":
            return module._modules["module"]
    return None


def named_modules(root: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Walk a model in state-dict order.

    A module that is reachable by several names is given once for each of them, as in a state dict.

    Args:
        root: the model.
        name: its own name.

    Yields:
        The canonical dotted name and the unwrapped module; the root first.
    """
    module = unwrap(root)
    yield name, module
    for child_name, child in module._modules.items():
        # What a quantization-aware training adds to measure is no part of the model.
        if child is not None and not type(child).__module__.startswith(
            "torchao.quantization.qat.fake"
        ):
            yield from named_modules(child, f"{name}.{child_name}" if name else child_name)


def original_class(module: nn.Module) -> type[nn.Module]:
    """The class that a module was made as; FSDP2 puts one of its own, ``FSDP...``, before it."""
    kind = type(module)
    made = isinstance(module, FSDPModule) and kind.__name__.startswith("FSDP")
    return next(base for base in kind.__mro__ if not (made and issubclass(base, FSDPModule)))
