"""Whether a model has rules of its own for what is saved of it.

Most modules save their parameters and persistent buffers as they are. Some have extra state, hooks,
or an override of ``state_dict``; some models have a ``save_pretrained`` of their own.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedModel

from canonical_saver.weights.module_tree import named_modules, original_class, saved_by_bitsandbytes

RULES = ("state_dict", "_save_to_state_dict", "get_extra_state")
"""Methods of a module that make its state dict."""

HOOKS = ("_state_dict_pre_hooks", "_state_dict_hooks")
"""Attributes of a module with the hooks that change its state dict."""

_KNOWN = ("torch.distributed.", "deepspeed.", "peft.")


def has_own_saving(model: nn.Module) -> bool:
    """Whether a model's class does more to save it than transformers does for every model."""
    own = getattr(original_class(model), "save_pretrained", None)
    return own is not None and own is not PreTrainedModel.save_pretrained


def has_own_state_dict(model: nn.Module) -> bool:
    """Whether any module of a model has rules of its own for its state dict."""
    return any(_has_rules(module) for _, module in named_modules(model))


def is_known(rule: Any) -> bool:
    """Whether a rule only puts in order what an engine or PEFT has apart."""
    return str(getattr(rule, "__module__", "")).startswith(_KNOWN)


def _has_rules(module: nn.Module) -> bool:
    if saved_by_bitsandbytes(module):
        return False  # its rules are known, and would change its weight
    if any(name in vars(module) for name in RULES):
        return True
    kind = type(module)
    rules = [getattr(kind, n) for n in RULES if getattr(kind, n) is not getattr(nn.Module, n)]
    hooks = [hook for name in HOOKS for hook in getattr(module, name).values()]
    return not all(map(is_known, [*rules, *hooks]))
