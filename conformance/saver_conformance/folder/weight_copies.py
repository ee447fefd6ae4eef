"""Which files hold tensors of a model, whatever their format, told by the bytes of the tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from saver_conformance.observation.observation import Tensor

WINDOW = 32
"""Bytes of a tensor that are looked for."""
VARIETY = 12
"""Different bytes among them at least: rows of equal numbers are in many files."""
SAMPLE = 12
"""Tensors that are looked for, spread over the model."""
SHARE = 0.5
"""Part of the model's tensors that make a copy: one of them alone may be wanted elsewhere."""


def find_copies(tensors: Mapping[str, Tensor], files: Iterable[Path]) -> Mapping[Path, list[str]]:
    """The files that hold a copy of the model among them, each with its tensors' names.

    Some of the tensors are looked for. A part of one that holds its begin, its middle or its end
    counts as the tensor.

    Args:
        tensors: those of the model.
        files: regular files, read whole one by one.
    """
    known = {name: found for name, tensor in tensors.items() if (found := _windows(tensor))}
    step = max(1.0, len(known) / SAMPLE)
    chosen = {int(place * step) for place in range(min(SAMPLE, len(known)))}
    windows = {name: known[name] for place, name in enumerate(known) if place in chosen}
    holders: dict[Path, list[str]] = {}
    for file in files:
        try:
            content = file.read_bytes()
        except OSError:
            continue
        if names := [n for n, parts in windows.items() if any(part in content for part in parts)]:
            holders[file] = names
    copied = {name for names in holders.values() for name in names}
    return holders if len(copied) >= max(1.0, SHARE * len(windows)) else {}


def _windows(tensor: Tensor) -> list[bytes]:
    """Parts of a tensor's bytes that are hardly anywhere else."""
    size = len(tensor.data)
    starts = {0, size // 2, size - WINDOW} if size >= WINDOW else set()
    parts = (bytes(tensor.data[start : start + WINDOW]) for start in sorted(starts))
    return [part for part in parts if len(part) == WINDOW and len(set(part)) >= VARIETY]
