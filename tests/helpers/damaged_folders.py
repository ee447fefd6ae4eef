"""Saved folders that are wrong in one way each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]


def rewritten(origin: Path, target: Path, change: Callable[[Tensors], None]) -> None:
    """Copy a folder with one weight file, and change its tensors."""
    shutil.copytree(origin, target)
    path = next(target.glob("*model.safetensors"))
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def place(folder: Path, name: str, files: str = "*.safetensors") -> tuple[Path, int, int]:
    """The file of a tensor, its first byte in it, and how many bytes it has."""
    for path in sorted(folder.glob(files)):
        raw = path.read_bytes()
        start = 8 + int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8:start])
        if name in header:
            first, end = header[name]["data_offsets"]
            return path, start + first, end - first
    raise LookupError(name)


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as stream:
        stream.seek(offset)
        stream.write(data)


def flip(origin: Path, target: Path, name: str, byte: int, files: str = "*.safetensors") -> None:
    """Copy a folder, and flip the lowest bit of one byte of a tensor."""
    shutil.copytree(origin, target)
    path, start, _ = place(target, name, files)
    old = path.read_bytes()[start + byte]
    overwrite(path, start + byte, bytes([old ^ 1]))


def swap(origin: Path, target: Path, name: str, one: tuple[int, int], other: int) -> None:
    """Copy a folder, and swap two stretches of a tensor.

    Args:
        origin: the folder.
        target: the copy.
        name: the tensor.
        one: first byte and size of a stretch.
        other: the first byte of the other one.
    """
    shutil.copytree(origin, target)
    path, start, _ = place(target, name)
    raw = path.read_bytes()
    first, size = one
    a, b = start + first, start + other
    overwrite(path, a, raw[b : b + size])
    overwrite(path, b, raw[a : a + size])
