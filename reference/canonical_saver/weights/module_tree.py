"""The module tree without its wrappers.

Wrappers are known by what they are, never by the text of a name: a model's own module may well be
called ``module`` or ``default``.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import ActivationWrapper
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel


def is_a(module: nn.Module, name: str) -> bool:
    """Whether a module is of a class of DeepSpeed's, which is never imported here.

    Args:
        module: the module.
        name: the name of the class.
    """
    kind: Any = type(module)
    return _derives(kind, name)


@lru_cache(maxsize=4096)
def _derives(kind: Any, name: str) -> bool:
    return any(
        base.__name__ == name and base.__module__.partition(".")[0] == "deepspeed"
        for base in kind.__mro__
    )


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
    children = module._modules
    if isinstance(module, DistributedDataParallel | DataParallel | AveragedModel):
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


def original_class(module: nn.Module) -> type[nn.Module]:
    """The class that a module was made as; FSDP2 puts one of its own, ``FSDP...``, before it."""
    kind = type(module)
    if isinstance(module, FSDPModule) and kind.__name__.startswith("FSDP"):
        return next(
            base
            for base in kind.__mro__[1:]
            if issubclass(base, nn.Module) and not issubclass(base, FSDPModule)
        )
    return kind


def bare(model: nn.Module) -> Any:
    """Copy a model's modules, of their original classes and without wrappers, but no tensor.

    This is for the rules of other libraries, which read the names and classes of modules. What they
    change in the copy does not change the model, except the data of a tensor.
    """
    copies: dict[int, nn.Module] = {}

    def copied(module: nn.Module) -> nn.Module:
        module = unwrap(module)
        if id(module) not in copies:
            kind = original_class(module)
            copies[id(module)] = made = nn.Module.__new__(kind)
            for key, value in vars(module).items():
                made.__dict__[key] = copy.copy(value) if isinstance(value, dict | list) else value
            made.__dict__["_modules"] = {
                name: None if child is None else copied(child)
                for name, child in module._modules.items()
            }
            made.__dict__["_parameters"] = dict(module._parameters)
            for hooks in ("_forward_hooks", "_forward_pre_hooks"):  # of an engine that shards
                made.__dict__[hooks] = type(vars(module)[hooks])()
        return copies[id(module)]

    return copied(model)
