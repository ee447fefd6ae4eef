"""Tensors whose elements do not lie in memory one by one, in some order."""

from __future__ import annotations

import torch

from canonical_saver.errors import WeightsError


def refusal(tensor: torch.Tensor) -> WeightsError:
    """Say why a tensor cannot be saved: it is sparse, or a lazy module has not made it yet."""
    if torch.nn.parameter.is_lazy(tensor):
        return WeightsError(
            "expected a tensor with a shape, found one of a lazy module that has not run yet; run "
            "the model once before it is saved"
        )
    return WeightsError(
        f"expected a dense tensor, found a {str(tensor.layout).removeprefix('torch.')} one, which "
        "a weight file cannot hold; save the model with it made dense, by to_dense"
    )
