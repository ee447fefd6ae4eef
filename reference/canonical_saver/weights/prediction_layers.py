"""Layers beside the model's own that predict further tokens (MTP): claims, and names of tensors."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

_CLAIM = re.compile(r"(?=.*(mtp|nextn))(?=.*num)[a-z0-9_]+")
_LAYERS = re.compile(r"(^|\.)layers\.")
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
        elif type(value) is int and value > 0 and is_claim(name):
            found.append((*inside, name))
    return found


def is_claim(name: str) -> bool:
    """Whether a setting says how many such layers there are."""
    return _CLAIM.fullmatch(name) is not None


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


def beside(names: Iterable[str], held: Collection[str], layers: int | None) -> list[str]:
    """Find the tensors of a checkpoint that are of such layers, and not of the model.

    Args:
        names: of the checkpoint's tensors.
        held: names of the model's own tensors.
        layers: how many layers the model has without them.
    """
    # A layer with a high number in another part of the model is one of that part.
    stems = {name[: own.end()] for name in held if (own := _LAYERS.search(name))}
    found = []
    for name in names:
        inside = _LAYERS.search(name)
        count = layers if inside and name[: inside.end()] in stems else None
        if name not in held and is_of_prediction_layer(name, count):
            found.append(name)
    return found
