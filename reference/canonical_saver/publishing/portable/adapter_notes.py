"""What servers cannot do with an adapter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from canonical_saver.weights.saved_tensors import WeightSet


def notes(weight_sets: Sequence[WeightSet]) -> Iterator[str]:
    """Say of each adapter what keeps vLLM and llama.cpp from serving it.

    Args:
        weight_sets: the adapters that are saved, or a whole model.
    """
    for weights in weight_sets:
        reasons = _reasons(weights.config) if weights.adapter is not None else []
        if reasons:
            name = f"the adapter '{weights.adapter}'" if len(weight_sets) > 1 else "the adapter"
            yield (
                f"{name} {' and '.join(reasons)}: vLLM and llama.cpp refuse it as an adapter; to "
                "serve it, merge it into its base (merge_and_unload) and save the whole model"
            )


_WHOLE = {
    "modules_to_save": "trains modules whole (modules_to_save)",
    "trainable_token_indices": "trains tokens (trainable_token_indices)",
}


def _reasons(config: Any) -> list[str]:
    kind = str(getattr(config, "peft_type", "")).rpartition(".")[2]
    if kind and kind != "LORA":
        return [f"is of the kind {kind}"]
    found = ["is weight-decomposed (DoRA)"] if getattr(config, "use_dora", False) else []
    return found + [text for key, text in _WHOLE.items() if getattr(config, key, None)]
