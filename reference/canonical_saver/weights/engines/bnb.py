"""bitsandbytes: what a quantized layer adds to a state dict while saving.

The layers do this in ``_save_to_state_dict``, which cannot be called on a sharded model and which,
on some processors, repacks the layer's own weight. bitsandbytes is imported by its own layers only.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn


def unpacked(weight: Any) -> nn.Parameter:
    """A quantized parameter in the order of bytes that a file has."""
    if not getattr(weight.quant_state, "packing_format_for_cpu", False):
        return weight  # type: ignore[no-any-return]
    return nn.Parameter(_unpack(weight)[0], requires_grad=False)


def quantization_state(module: nn.Module, known: set[str]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors without which a layer's quantized weight has no meaning.

    Args:
        module: a module that saves its weight by the rules of bitsandbytes.
        known: names that are parameters or buffers of it.
    """
    weight: Any = module._parameters.get("weight")
    state = getattr(weight, "quant_state", None)
    if state is not None:
        if getattr(state, "packing_format_for_cpu", False):
            state = _unpack(weight)[1]
        for key, value in state.as_dict(packed=True).items():
            yield f"weight.{key}", value
    elif hasattr(weight, "SCB") and hasattr(module, "state"):
        found: dict[str, Any] = {}
        module._save_to_state_dict(found, "", False)
        for key, value in found.items():
            if key not in known and isinstance(value, torch.Tensor):
                yield key, value


def _unpack(weight: Any) -> tuple[torch.Tensor, Any]:  # pragma: no cover - AVX-512 alone
    from bitsandbytes.functional import _convert_weight_packed_for_cpu_inverse

    # The function changes the state that it is given.
    data, state = _convert_weight_packed_for_cpu_inverse(
        weight.data, copy.deepcopy(weight.quant_state)
    )
    return data, state
