"""Classes of DeepSpeed's, which is never imported here."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from torch import nn


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
