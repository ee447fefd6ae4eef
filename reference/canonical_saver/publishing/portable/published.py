"""Settings that published checkpoints have and that the class of transformers 5 has no name for.

The class computes as they say, whatever they say. A model that was loaded from such a checkpoint
has them, and a save keeps them; one that was made from a configuration has not. Each entry is
measured with the readers named, which fail or take another default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from canonical_saver.publishing.portable.key import Choice, Key, Place

_MISTRAL_RS, _MLX = "mistral.rs", "mlx-lm"
_SCALES = "transformers 4, which scales positions without it"
_ROUTER = "mistral.rs and vLLM, which take another router"
_UNKNOWN = object()
"""A value that the configuration does not tell; None is one, which stands as null."""


def _first_sliding_layer(own: Mapping[str, Any]) -> Any:
    """Qwen3-MoE of transformers slides in all layers or in none (modeling_qwen3_moe.py)."""
    return 0 if own.get("use_sliding_window") else own.get("num_hidden_layers", _UNKNOWN)


def _head_dim(own: Mapping[str, Any]) -> Any:
    """What the attention takes where there is none (modeling_qwen3_moe.py)."""
    size, heads = own.get("hidden_size"), own.get("num_attention_heads")
    return size // heads if type(size) is int and type(heads) is int and heads else _UNKNOWN


def _no_scaling(own: Mapping[str, Any]) -> Any:
    """Null where positions are not scaled; where they are, the setting has its old name anyway."""
    rope = own.get("rope_parameters")
    is_plain = isinstance(rope, Mapping) and rope.get("rope_type") == "default"
    return None if is_plain else _UNKNOWN


_Value = Callable[[Mapping[str, Any]], Any]
_SETTINGS: Mapping[str, Mapping[str, tuple[_Value, str]]] = {
    "qwen3_moe": {
        "max_window_layers": (_first_sliding_layer, _MISTRAL_RS),
        "head_dim": (_head_dim, _MLX),
    },
    "glm4_moe": {"rope_scaling": (_no_scaling, _MLX)},
    "gpt_oss": {"rope_scaling": (_no_scaling, _SCALES)},
    "apertus": {"rope_scaling": (_no_scaling, _SCALES)},
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
        is_there = name in own if value is None else own.get(name) is not None
        if not is_there and value is not _UNKNOWN:
            yield Choice((Key(inside, name, value, readers),), kept=True)
