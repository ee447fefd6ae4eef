"""The ``safetensors`` format: a header of JSON, and the tensors one behind the other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import accumulate, pairwise
from math import prod
from pathlib import Path
from typing import Any

import torch

from canonical_saver.errors import WeightsError
from canonical_saver.file_io import create_file
from canonical_saver.formats.layout import File, PlacedTensor, lay_out_shards, stored_dtype
from canonical_saver.request import Request
from canonical_saver.weights.saved_tensors import SavedTensor, WeightSet

ENDING = ".safetensors"

DTYPE_NAMES: dict[torch.dtype, str] = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e8m0fnu: "F8_E8M0",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
    torch.int16: "I16",
    torch.uint16: "U16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.uint32: "U32",
    torch.float32: "F32",
    torch.complex64: "C64",
    torch.float64: "F64",
    torch.int64: "I64",
    torch.uint64: "U64",
}
"""Names of dtypes in a header, in the order in which safetensors ranks them (it writes the last
first)."""


_RANKING = {dtype: number for number, dtype in enumerate(DTYPE_NAMES)}


def safetensors_file(
    name: str, saved_tensors: Sequence[SavedTensor], dtype: torch.dtype | None
) -> File:
    """Lay out one file.

    Raises:
        WeightsError: a dtype that the format does not have.
    """
    stored = [(saved, stored_dtype(saved, dtype)) for saved in saved_tensors]
    for saved, kind in stored:
        if kind not in DTYPE_NAMES:
            raise WeightsError(
                f"'{saved.name}': expected a dtype that safetensors can hold, found {kind}; save "
                "in the torch format"
            )
    stored.sort(key=lambda pair: (-_RANKING[pair[1]], pair[0].name.encode()))
    sizes = (prod(saved.shape) * kind.itemsize for saved, kind in stored)
    bounds = [*accumulate(sizes, initial=0)]
    header = _header(stored, bounds)
    placed = tuple(
        PlacedTensor(saved, kind, len(header) + start)
        for (saved, kind), start in zip(stored, bounds[:-1], strict=True)
    )
    return File(name, header, placed, len(header) + bounds[-1])


def _header(stored: Sequence[tuple[SavedTensor, torch.dtype]], bounds: Sequence[int]) -> bytes:
    """Make the header that safetensors writes for tensors already in file order.

    Args:
        stored: the tensors, each with its dtype in the file.
        bounds: the first byte of each behind the header, and the end of the last.

    Returns:
        Length and text, padded with spaces to a multiple of 8 bytes.
    """
    described: dict[str, object] = {"__metadata__": {"format": "pt"}}
    for (saved, kind), span in zip(stored, pairwise(bounds), strict=True):
        described[saved.name] = {
            "dtype": DTYPE_NAMES[kind],
            "shape": list(saved.shape),
            "data_offsets": list(span),
        }
    text = json.dumps(described, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def lay_out(weight_sets: Sequence[WeightSet], request: Request) -> list[File]:
    """Lay out all weight files of a save; the layout is final."""
    return lay_out_shards(weight_sets, request, ENDING, safetensors_file)


def create(folder: Path, weight_sets: Sequence[WeightSet], files: Sequence[File]) -> list[Any]:
    """Make each file at its final size with its header, and the indexes; on rank 0."""
    for file in files:
        path = folder / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        create_file(path, file.size, (0, file.header))
    if len(files) > len(weight_sets):
        from canonical_saver.formats.shards import write_indexes

        write_indexes(folder, weight_sets, files, ENDING)
    return []


def finish(writer: Any) -> None:
    """Nothing is left to write."""
