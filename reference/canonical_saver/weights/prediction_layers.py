"""Layers beside the model's own that predict further tokens (MTP): claims, and names of tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_CLAIM = re.compile(r"(?=.*(mtp|nextn))(?=.*num)[a-z0-9_]+")
_NAMED = re.compile(r"(^|\.)mtp(_[a-z]+)?\.")
_NUMBERED = re.compile(r"(^|\.)layers\.(\d+)\.")


def claimed(config: Mapping[str, Any], inside: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Find the settings that claim such layers, such as ``num_nextn_predict_layers``.

    Args:
        config: what ``config.json`` has, or a part of it.
        inside: the keys that lead to it.

    Returns:
        The keys that lead to each setting.
    """
    found: list[tuple[str, ...]] = []
    for name, value in config.items():
        if isinstance(value, Mapping):
            found += claimed(value, (*inside, name))
        elif type(value) is int and value > 0 and _CLAIM.fullmatch(name):
            found.append((*inside, name))
    return found


def main_layers(config: Mapping[str, Any]) -> int | None:
    """How many layers the model has without them, None if that is not known."""
    text = config.get("text_config")
    own = text if isinstance(text, Mapping) and "num_hidden_layers" in text else config
    count = own.get("num_hidden_layers")
    return count if type(count) is int else None


def is_of_prediction_layer(name: str, layers: int | None) -> bool:
    """Whether a tensor is of such a layer, by its name.

    Some have ``mtp`` in it; the layers of others are numbered behind those of the model.

    Args:
        name: of the tensor on the hub.
        layers: how many layers the model has without them.
    """
    if _NAMED.search(name):
        return True
    numbered = _NUMBERED.search(name)
    return layers is not None and numbered is not None and int(numbered[2]) >= layers
