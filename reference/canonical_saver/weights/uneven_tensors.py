"""Tensors whose elements are not in memory one behind the other, in row-major order."""

from __future__ import annotations

import torch

from canonical_saver.errors import WeightsError
from canonical_saver.weights.tensors import has_own_storage


def refuse_wrapper(tensor: torch.Tensor) -> None:
    """Refuse a tensor that only stands for others, as a quantized one of torchao.

    Raises:
        WeightsError: what its storage has is not its elements.
    """
    if not has_own_storage(tensor):
        raise refusal(tensor)


def refusal(tensor: torch.Tensor) -> WeightsError:
    """Say why a tensor cannot be saved: it stands for others, is sparse, or is not made yet."""
    if not has_own_storage(tensor):
        return WeightsError(
            f"expected a tensor with elements of its own, found a {type(tensor).__module__}."
            f"{type(tensor).__name__}, which is made of others and which a weight file cannot "
            "hold; save the model before it is converted, or by the library that converted it"
        )
    if torch.nn.parameter.is_lazy(tensor):
        return WeightsError(
            "expected a tensor with a shape, found one of a lazy module that has not run yet; run "
            "the model once before it is saved"
        )
    return WeightsError(
        f"expected a dense tensor, found a {str(tensor.layout).removeprefix('torch.')} one, which "
        "a weight file cannot hold; save the model with it made dense, by to_dense"
    )


def without_data(name: str) -> WeightsError:
    """Say of a tensor on the meta device that nothing has its data."""
    return WeightsError(
        f"'{name}': expected a tensor with data, found one on the meta device "
        "and no hook of accelerate that has its data; load the weights before saving"
    )


def flat(data: torch.Tensor, start: int, stop: int) -> torch.Tensor:
    """The elements ``[start, stop)`` in row-major order; copies no others, and no coordinates.

    ``reshape(-1)`` would copy the whole of a tensor that does not lie in this order.
    """
    if data.is_contiguous():
        return data.view(-1)[start:stop]
    if data.dim() == 1:
        return data[start:stop]
    row = data.numel() // data.shape[0]
    first, last = -(-start // row), stop // row  # the whole rows among them
    if first > last:
        return flat(data[last], start - last * row, stop - last * row)
    parts = [data[first:last].reshape(-1)]
    if start < first * row:
        parts.insert(0, flat(data[first - 1], start - (first - 1) * row, row))
    if stop > last * row:
        parts.append(flat(data[last], 0, stop - last * row))
    return torch.cat(parts) if len(parts) > 1 else parts[0]
