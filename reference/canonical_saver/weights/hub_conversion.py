"""From the names and shapes in memory to those on the hub.

transformers 5 keeps some weights in another form in memory, fused experts above all, and reverts
this when saving (``revert_weight_conversion``). Here the reversal runs on tensors without data,
while each operation on them is watched: most only cut or join flat ranges, and these are written
straight from where they lie. A tensor that is really computed (transposed, permuted) must be
gathered for it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from canonical_saver.weights.bare_copy import bare
from canonical_saver.weights.origins import OriginWatch
from canonical_saver.weights.saved_tensors import SavedTensor, SourceRange
from canonical_saver.weights.tensors import ModelTensor

MOST_STRETCHES = 4096
"""A tensor of more than so many separate ranges of a model tensor is computed instead: to gather
the model tensor costs less than so many small writes. The halves of fused experts are one range
an expert.
"""


def to_hub(model: nn.Module, model_tensors: Mapping[str, ModelTensor]) -> list[SavedTensor]:
    """Name and shape the tensors of a model as on the hub.

    Args:
        model: the unwrapped model; only a transformers model has conversions.
        model_tensors: its tensors by their names in memory, in state-dict order.

    Returns:
        The tensors to save, in the order in which ``save_pretrained`` fills files.
    """
    shadows = {
        name: torch.empty(model_tensor.shape, dtype=model_tensor.dtype, device="meta")
        for name, model_tensor in model_tensors.items()
    }
    watch = _Watch()
    for name, model_tensor in model_tensors.items():
        watch.know_source(shadows[name], name, model_tensor)
    with watch:
        converted = revert(model, shadows)
    saved_tensors: list[SavedTensor] = []
    for name, shadow in converted.items():
        ranges = watch.source_ranges(shadow)
        needs = frozenset[str]()
        if ranges is None or any(one.model_tensor.needs for one in ranges):
            ranges = None
            needs = needs.union(*(model_tensors[n].needs or {n} for n in watch.origins(shadow)))
        saved_tensors += [SavedTensor(name, shadow.dtype, tuple(shadow.shape), ranges, needs)]
    return saved_tensors


def revert(model: nn.Module, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Turn tensors by their names in memory into those of the hub.

    Args:
        model: the unwrapped model.
        tensors: some of its tensors, complete; each conversion has all that it needs, or nothing.

    Raises:
        WeightsError: its configuration is none of transformers.
    """
    if not isinstance(model, PreTrainedModel):
        return tensors
    if not hasattr(model.config, "model_type"):
        from canonical_saver.weights.unloadable import refuse_config

        refuse_config(model)
    converted: dict[str, torch.Tensor] = revert_weight_conversion(bare(model), tensors)
    return converted


class _Watch(OriginWatch):  # type: ignore[no-untyped-call]
    """Follows where the elements of tensors without data come from.

    By storage, ``_spans`` says which ranges of it are ranges of sources.
    """

    def __init__(self) -> None:
        super().__init__()
        self._spans: dict[int, list[SourceRange]] = {}

    def know_source(self, shadow: torch.Tensor, name: str, model_tensor: ModelTensor) -> None:
        whole = SourceRange(0, model_tensor.numel, model_tensor, 0)
        self._spans[self.know(shadow, name)] = [whole]

    def source_ranges(self, shadow: torch.Tensor) -> tuple[SourceRange, ...] | None:
        """The ranges that make up a tensor in row-major order, None if they are too many."""
        known = self._spans.get(self.key(shadow))
        stretches = _stretches(shadow)
        if known is None or stretches is None:
            return None
        found = []
        position = 0
        for first, length in stretches:
            last = first + length
            for number in range(bisect_right(known, first, key=_end), len(known)):
                source_range = known[number]
                if source_range.start >= last:
                    break
                lower, upper = max(source_range.start, first), min(_end(source_range), last)
                offset = source_range.offset + lower - source_range.start
                found.append(
                    SourceRange(
                        position + lower - first, upper - lower, source_range.model_tensor, offset
                    )
                )
            position += length
        return tuple(found)

    def on_change(self, key: int) -> None:
        self._spans.pop(key, None)

    def on_result(self, key: int, func: Any, args: Any, kwargs: Any, output: torch.Tensor) -> None:
        joined = None if key in self._spans else self._joined(func, args, kwargs, output)
        if joined is not None:
            self._spans[key] = joined

    def _joined(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: torch.Tensor
    ) -> list[SourceRange] | None:
        """The ranges of a new tensor that was made by copying others one behind the other."""
        name = func.name().split("::")[-1].split(".")[0]
        if name in ("cat", "stack"):
            parts = list(args[0])
            dim = kwargs.get("dim", args[1] if len(args) > 1 else 0)
            if any(size != 1 for size in output.shape[: dim % output.dim()]):
                return None
        elif name in ("clone", "_to_copy") and args[0].dtype == output.dtype:
            parts = [args[0]]
        else:
            return None
        joined: list[SourceRange] = []
        position = 0
        for part in parts:
            source_ranges = self.source_ranges(part)
            if source_ranges is None:
                return None
            joined += [
                SourceRange(position + s.start, s.length, s.model_tensor, s.offset)
                for s in source_ranges
            ]
            position += part.numel()
        return joined if output.is_contiguous() else None


def _end(source_range: SourceRange) -> int:
    return source_range.start + source_range.length


def _stretches(tensor: torch.Tensor) -> list[tuple[int, int]] | None:
    """Where in its storage the elements of a tensor lie, in row-major order.

    Returns:
        First element and number of elements of each range; None where single elements or more
        than ``MOST_STRETCHES`` would have to be picked, so that computing is cheaper.
    """
    outer = [pair for pair in zip(tensor.shape, tensor.stride(), strict=True) if pair[0] != 1]
    inner = 1
    while outer and outer[-1][1] == inner:
        inner *= outer.pop()[0]
    count = prod(size for size, _ in outer)
    if not inner * count:
        return []
    if count > 1 and (inner == 1 or count > MOST_STRETCHES):
        return None
    firsts = [int(tensor.storage_offset())]
    for size, stride in outer:
        firsts = [first + number * stride for first in firsts for number in range(size)]
    return [(first, inner) for first in firsts]
