"""Tied tensors that loading ties again, which are saved once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from torch import nn

from canonical_saver.weights.full import declares_ties
from canonical_saver.weights.module_tree import named_modules
from canonical_saver.weights.tensors import ModelTensor


def saved_once(model: nn.Module, found: Mapping[str, ModelTensor]) -> dict[str, ModelTensor]:
    """Leave out the tensors that loading makes again from others.

    What is tied in memory only, against the configuration, has to be saved twice: loading gives a
    target that is neither tied nor in the file random values.

    Args:
        model: the unwrapped model.
        found: its tensors by their names in memory.
    """
    kept = dict(found)
    for target, origin in list(_reloaded_ties(model, kept)):
        if target in kept and origin in kept and _tied(kept[target], kept[origin]):
            del kept[target]
    return kept


def _reloaded_ties(
    model: nn.Module, model_tensors: Mapping[str, ModelTensor]
) -> Iterator[tuple[str, str]]:
    """Pairs (target, origin) that loading ties again, by each submodel's own declaration."""
    for prefix, module in named_modules(model):
        if not declares_ties(module):
            continue
        inside = f"{prefix}." if prefix else ""
        names = sorted(n.removeprefix(inside) for n in model_tensors if n.startswith(inside))
        for target, origin in module._tied_weights_keys.items():  # type: ignore[union-attr, operator]
            targets = [n for n in names if re.search(f"^{target}", n)]
            origins = [n for n in names if re.search(f"^{origin}", n)]
            for number, name in enumerate(targets):
                if origins:
                    yield inside + name, inside + origins[number % len(origins)]


def _tied(one: ModelTensor, other: ModelTensor) -> bool:
    if one.identity == other.identity or not hasattr(one.identity, "load"):
        return one.identity == other.identity
    from canonical_saver.weights.engines import offload

    return offload.equal(one, other)
