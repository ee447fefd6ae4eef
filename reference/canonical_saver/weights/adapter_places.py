"""Where layers hold the tensors of adapters: in dictionaries that have their names as keys."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from peft.tuners._buffer_dict import BufferDict
from torch import nn

from canonical_saver.weights.module_tree import named_modules

_DICTIONARIES = (nn.ModuleDict, nn.ParameterDict, BufferDict)


def places_of(model: Any, adapters: Collection[str]) -> list[str]:
    """Beginnings of the names of the tensors of ``adapters``, each with a dot at its end.

    A module of the base model may be called like an adapter: it is in no such dictionary.

    Args:
        model: the unwrapped PEFT model.
        adapters: some of its adapters.
    """
    known = set(model.peft_config)
    places = []
    for name, module in named_modules(model):
        keys = set(module.keys()) if isinstance(module, _DICTIONARIES) else set()
        if keys and keys <= known:
            places += [f"{name}.{key}." for key in keys & set(adapters)]
    return places
