"""Base tensors that are saved with an adapter, and into which the adapter is merged at the moment.

Whoever loads them puts the adapter on top of them once more.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from peft.tuners.lora import LoraLayer
from peft.tuners.trainable_tokens import TrainableTokensLayer
from peft.tuners.tuners_utils import BaseTunerLayer

from canonical_saver.errors import WeightsError
from canonical_saver.weights.module_tree import named_modules
from canonical_saver.weights.saved_tensors import SavedTensor
from canonical_saver.weights.tensors import ModelTensor


def refuse(
    model: Any, model_tensors: Mapping[str, ModelTensor], saved_tensors: Collection[SavedTensor]
) -> None:
    """Refuse to save a tensor of the base that an adapter is merged into.

    Args:
        model: the unwrapped PEFT model.
        model_tensors: its tensors by their names in memory.
        saved_tensors: what is saved of it.

    Raises:
        WeightsError: there is one; names it.
    """
    starts = {
        f"{name}.base_layer.": module
        for name, module in named_modules(model)
        if isinstance(module, BaseTunerLayer) and module.merged
    }
    if not starts:
        return
    changed = {
        model_tensor.identity: name
        for name, model_tensor in model_tensors.items()
        for start, module in starts.items()
        if name.startswith(start) and _is_changed(module, name.removeprefix(start))
    }
    for saved in saved_tensors:
        for source_range in saved.source_ranges or ():
            if name := changed.get(source_range.model_tensor.identity, ""):
                raise WeightsError(
                    f"'{saved.name}': expected a tensor of the base as it was trained, found "
                    f"'{name}', into which the adapter is merged; it would be merged a second time "
                    "when it is loaded: call unmerge_adapter() before saving"
                )


def _is_changed(module: Any, name: str) -> bool:
    """Whether a tensor of a layer that an adapter is merged into would get it a second time."""
    if isinstance(module, TrainableTokensLayer):
        return False  # its rows take the place of others, as often as one likes
    if name != "bias" or not isinstance(module, LoraLayer):
        return True
    return any(module.lora_bias.get(adapter) for adapter in module.merged_adapters)
