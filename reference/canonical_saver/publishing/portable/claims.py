"""Layers that a configuration claims and no tensor of the save is of.

Layers that predict further tokens (MTP) are in checkpoints beside a model that most classes of
transformers load without them. Readers that go by the configuration look for them: vLLM fails, or
runs on memory that nothing was loaded into.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from canonical_saver.publishing.portable.key import part
from canonical_saver.weights.prediction_layers import claimed, is_of_prediction_layer, main_layers


def unmet(config: Mapping[str, Any], names: Iterable[str]) -> list[tuple[str, ...]]:
    """Find the claims that no tensor fulfils.

    Args:
        config: what ``config.json`` has.
        names: of the tensors of the save.
    """
    found = claimed(config)
    layers = main_layers(config)
    if found and any(is_of_prediction_layer(name, layers) for name in names):
        return []
    return found


def without(config: Mapping[str, Any], places: Sequence[tuple[str, ...]]) -> dict[str, Any]:
    """Set claims to 0 in a copy of a configuration."""
    made = copy.deepcopy(dict(config))
    for *inside, name in places:
        part(made, tuple(inside))[name] = 0
    return made
