"""Which tensors a cast leaves as they are.

The packed weights of a quantized module, its scales and all else that belongs to them have a dtype
that is part of what they mean. transformers keeps some modules in float32 whatever dtype it loads
a model in; what was cut off while saving would not come back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from canonical_saver.errors import WeightsError
from canonical_saver.weights.saved_tensors import SavedTensor, WeightSet

_PACKED = frozenset({torch.uint8, torch.int8})
_FOUR_BIT = ".quant_state.bitsandbytes__"
_OF_QUANTIZATION = re.compile("scale|zero|absmax|quant|codebook|SCB")


def limited(model: Any, weights: WeightSet, dtype: torch.dtype) -> WeightSet:
    """Mark the tensors that a cast would break.

    Args:
        model: the module whose configuration lies next to the weights.
        weights: what is saved.
        dtype: the dtype that was requested.

    Raises:
        WeightsError: the model is quantized, and nothing shows which of its tensors are, or their
            own description tells the dtype of the others.
    """
    four_bit = next((e.name for e in weights.saved_tensors if _FOUR_BIT in e.name), None)
    if four_bit is not None:
        raise WeightsError(
            f"dtype: expected weights that can be cast apart from each other, found 4-bit ones of "
            f"bitsandbytes, which hold the dtype that the layers around them compute in: "
            f"'{four_bit}'; save the model without dtype, or load its base in that dtype"
        )
    quantized = weights.adapter is None and is_quantized(model)
    packed = [saved for saved in weights.saved_tensors if _is_packed(saved, quantized)]
    if quantized and not packed:
        raise WeightsError(
            f"dtype: expected a model that is not quantized, or packed weights that show what is, "
            f"found only that {type(model).__name__} is; save it without dtype"
        )
    modules = {_module(saved.name) for saved in packed}
    within = tuple(f"{saved.name}." for saved in packed)
    kept = _kept_in_float32(model, dtype) if weights.adapter is None else None
    names = {id(model_tensor): name for name, model_tensor in weights.model_tensors.items()}

    def is_fixed(saved: SavedTensor) -> bool:
        if _module(saved.name) in modules or saved.name.startswith(within):
            return True
        if quantized and _OF_QUANTIZATION.search(saved.name.rpartition(".")[2]):
            return True
        return kept is not None and any(map(kept.search, _in_memory(saved, names)))

    return replace(
        weights, saved_tensors=tuple(replace(e, fixed=is_fixed(e)) for e in weights.saved_tensors)
    )


def is_quantized(model: Any) -> bool:
    """Whether a model says that it is quantized."""
    quantizer = getattr(model, "hf_quantizer", None)
    return quantizer is not None or has_quantization(getattr(model, "config", None))


def has_quantization(config: Any) -> bool:
    """Whether a configuration, or one inside it, says that its model is quantized."""
    parts = [config, *(vars(config).values() if config is not None else ())]
    return any(getattr(part, "quantization_config", None) is not None for part in parts)


def _is_packed(saved: SavedTensor, quantized: bool) -> bool:
    """Whether a tensor is a quantized weight; by its dtype, the names differ from way to way."""
    dtype = saved.dtype
    if dtype.is_floating_point:
        return dtype.itemsize == 1
    # Masks and counters are integers too, but a model that is not quantized has them as buffers.
    return dtype != torch.bool and (quantized or (dtype in _PACKED and len(saved.shape) == 2))


def _kept_in_float32(model: Any, dtype: torch.dtype) -> re.Pattern[str] | None:
    plan = getattr(model, "_get_dtype_plan", None)
    patterns: Sequence[str] = list(plan(dtype)) if plan is not None else []
    return re.compile("|".join(p.replace("*", ".*") for p in patterns)) if patterns else None


def _in_memory(saved: SavedTensor, names: Mapping[int, str]) -> set[str]:
    source_ranges = saved.source_ranges or ()
    return {
        names.get(id(source_range.model_tensor), saved.name) for source_range in source_ranges
    } | saved.needs


def _module(name: str) -> str:
    return name.rpartition(".")[0]
