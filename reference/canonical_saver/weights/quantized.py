"""Quantized models whose tensors alone do not make a folder that loads."""

from __future__ import annotations

from torch import nn
from transformers.quantizers import HfQuantizer

from canonical_saver.errors import WeightsError


def refuse_quantizer(model: nn.Module) -> None:
    """Refuse such a model.

    Raises:
        WeightsError: it is one; says what to do.
    """
    quantizer = getattr(model, "hf_quantizer", None)
    if not isinstance(quantizer, HfQuantizer):
        return
    kind = type(quantizer)
    if not quantizer.is_serializable():
        raise WeightsError(
            f"expected a quantized model that can be saved, found one whose {kind.__name__} says "
            "that it cannot; dequantize it, or load it in another way"
        )
    if kind.get_state_dict_and_metadata is not HfQuantizer.get_state_dict_and_metadata:
        raise WeightsError(
            f"expected a quantized model whose tensors are saved as they are, found one whose "
            f"{kind.__name__} makes others of them; save it by its save_pretrained"
        )
