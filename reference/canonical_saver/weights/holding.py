"""A module that holds other tensors than its own, for the rules of other libraries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from canonical_saver.weights.bare_copy import bare


def holding(module: nn.Module, tensors: Mapping[str, torch.Tensor]) -> Any:
    """Copy a module, letting the copy hold other tensors.

    Args:
        module: the module, wrapped and sharded in any way.
        tensors: the copy's parameters and buffers by their names in the module.
    """
    made = bare(module)
    for name, tensor in tensors.items():
        path, _, own = name.rpartition(".")
        owner = made.get_submodule(path)
        vars(owner).pop(own, None)  # FSDP1 keeps views of its flat parameter there
        if own in owner._buffers:
            owner._buffers[own] = tensor
        else:
            owner._parameters[own] = nn.Parameter(tensor, requires_grad=False)
    return made
