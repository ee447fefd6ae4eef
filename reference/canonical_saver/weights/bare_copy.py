"""A model's modules without its tensors, for the rules of other libraries.

They read the names and classes of modules, which wrappers and FSDP2 change.
"""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from canonical_saver.weights.module_tree import original_class, unwrap


def bare(model: nn.Module) -> Any:
    """Copy a model's modules, of their original classes and without wrappers, but no tensor.

    What is changed in the copy does not change the model, except the data of a tensor.
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
