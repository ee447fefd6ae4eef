"""The shapes that a model of a configuration has, to tell a part of a tensor from the whole."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import Any

import torch
from transformers import PreTrainedModel

from canonical_saver.weights.module_tree import original_class

Shape = tuple[int, ...]


def expected(model: Any, names: Collection[str]) -> dict[str, Shape]:
    """Make the model again from its configuration, without data, and look up some shapes.

    It takes seconds for a model of many layers, so it is done only where ranks are found to differ.

    Args:
        model: the unwrapped model.
        names: names of tensors in memory.

    Returns:
        The shapes of those that the new model has; nothing if it cannot be made.
    """
    if not isinstance(model, PreTrainedModel):
        return {}
    try:
        # A class may draw numbers while it is made; training continues with the same ones.
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            made = original_class(model)(copy.deepcopy(model.config))
        shapes = {name: tuple(tensor.shape) for name, tensor in made.state_dict().items()}
    except Exception:
        return {}  # another owner's class; the shapes would only have explained more
    return {name: shapes[name] for name in names if name in shapes}


def is_part(found: Shape, whole: Shape, world_size: int) -> bool:
    """Whether one shape is that of a part of another, as sharding over some of the ranks cuts it.

    One dimension, and only one, is divided by a number of ranks by which the world can be divided;
    a remainder is spread over the parts.
    """
    differing = [pair for pair in zip(found, whole, strict=False) if pair[0] != pair[1]]
    if len(found) != len(whole) or len(differing) != 1:
        return False
    (mine, everything) = differing[0]
    return any(
        everything // parts <= mine <= -(-everything // parts)
        for parts in range(2, world_size + 1)
        if world_size % parts == 0
    )


def parts(
    found: Mapping[str, Shape], whole: Mapping[str, Shape], world_size: int
) -> dict[str, Shape]:
    """The tensors that are parts, with the shapes that they are parts of."""
    return {
        name: whole[name]
        for name, shape in found.items()
        if name in whole and is_part(shape, whole[name], world_size)
    }
