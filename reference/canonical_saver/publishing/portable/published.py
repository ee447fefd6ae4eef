"""Settings that published checkpoints have and that the class of transformers 5 has no name for.

The class computes as they say, whatever they say. A model that was loaded from such a checkpoint
has them, and a save keeps them; one that was made from a configuration has not. Each entry is
measured with the readers named, which fail or take another default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from canonical_saver.publishing.portable.key import Choice, Key, Place

_MISTRAL_RS = "mistral.rs"
_ROUTER = "mistral.rs and vLLM, which take another router"


def _first_sliding_layer(own: Mapping[str, Any]) -> Any:
    """Qwen3-MoE of transformers slides in all layers or in none (modeling_qwen3_moe.py)."""
    return 0 if own.get("use_sliding_window") else own.get("num_hidden_layers")


def _head_dim(own: Mapping[str, Any]) -> Any:
    """What the attention takes where there is none (modeling_qwen3_moe.py)."""
    size, heads = own.get("hidden_size"), own.get("num_attention_heads")
    return size // heads if type(size) is int and type(heads) is int and heads else None


_Value = Callable[[Mapping[str, Any]], Any]
_SETTINGS: Mapping[str, Mapping[str, tuple[_Value, str]]] = {
    "qwen3_moe": {
        "max_window_layers": (_first_sliding_layer, _MISTRAL_RS),
        "head_dim": (_head_dim, "mlx-lm"),
    },
    "deepseek_v3": {
        "scoring_func": (lambda _: "sigmoid", _ROUTER),
        "topk_method": (lambda _: "noaux_tc", _ROUTER),
    },
}
"""By ``model_type`` and name, the value and who looks for it."""


def candidates(inside: Place, own: Mapping[str, Any]) -> Iterator[Choice]:
    """Find what published checkpoints of this type have and a configuration lacks.

    Args:
        inside: the place of the configuration.
        own: the configuration.
    """
    for name, (make, readers) in _SETTINGS.get(str(own.get("model_type")), {}).items():
        value = make(own)
        if own.get(name) is None and value is not None:
            yield Choice((Key(inside, name, value, readers),), kept=True)
