"""Buffers of an adapter's base that training changed, such as a moving average or a router's bias.

Nothing in memory tells them from constants, but the base's checkpoint does, where it is on this
machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from torch.distributed.tensor import DTensor

from canonical_saver.weights import base_tensors
from canonical_saver.weights.module_tree import named_modules, unwrap

_ROUNDED = (torch.bfloat16, torch.float16)
"""What a value may have been rounded to on its way from the file, if it was loaded so."""


def find(model: Any, names: Sequence[str | None]) -> set[str]:
    """Find the buffers that differ from those in the base's checkpoint.

    Args:
        model: the unwrapped PEFT model.
        names: by which the base may be known: folders, or ids on the hub.

    Returns:
        Their names in memory; none if no checkpoint is at hand, or it has no such tensor.
    """
    base = unwrap(model.get_base_model())
    start = next(name for name, module in named_modules(model) if module is base)
    held = dict(_buffers(base))
    if not held:
        return set()
    wanted = {key: name for name in held for key in _keys(base, name)}
    for folder in base_tensors.folders(names):
        with suppress(OSError, ValueError, LookupError, TypeError, RuntimeError, SafetensorError):
            return {
                f"{start}.{wanted[key]}"
                for key, stored in _stored(folder, wanted.keys())
                if not _equal(held[wanted[key]], stored)
            }
    return set()


def _buffers(base: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """The persistent buffers that this process has complete, by their names in the base."""
    for place, module in named_modules(base):
        for name, value in module._buffers.items():
            if value is None or name in module._non_persistent_buffers_set:
                continue
            if not value.is_meta and not isinstance(value, DTensor):
                yield f"{place}.{name}" if place else name, value


def _keys(base: nn.Module, name: str) -> set[str]:
    """The names that a buffer may have in the base's checkpoint."""
    plain = name.replace(".base_layer.", ".")
    prefix = str(getattr(base, "base_model_prefix", "") or "")
    return {plain, plain.removeprefix(f"{prefix}."), f"{prefix}.{plain}"}


def _stored(folder: Any, keys: Any) -> Iterator[tuple[str, torch.Tensor]]:
    for file in base_tensors.files(folder):
        with safe_open(file, framework="pt") as stream:
            for key in keys & set(stream.keys()):
                yield key, stream.get_tensor(key)


def _equal(value: torch.Tensor, stored: torch.Tensor) -> bool:
    now = value.detach().to("cpu")
    if now.shape != stored.shape:
        return False
    ways = [stored, *(stored.to(dtype) for dtype in _ROUNDED if stored.is_floating_point())]
    return any(torch.equal(_bytes(way.to(now.dtype)), _bytes(now)) for way in ways)


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    # Not every dtype can be compared, and what is not a number equals nothing.
    return tensor.contiguous().reshape(-1).view(torch.uint8)
