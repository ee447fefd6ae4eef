"""A digest of a few elements of a tensor, to notice copies that drifted apart.

What drifts in training drifts everywhere. To digest all bytes would cost a processor more than to
read them from the disk, which is all that a proof is meant to cost.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

import torch

from canonical_saver.file_io import as_memoryview
from canonical_saver.weights.tensors import LocalSlice, elements

STRETCHES = 4
"""Places of a tensor at which elements are taken, the beginning and the end among them."""

STRETCH = 16
"""Elements that are taken at each."""

_AT_ONCE = 1024


def sampled(slices: Sequence[LocalSlice]) -> list[int]:
    """Digest some elements of each slice, waiting once for each device and thousand slices.

    Returns:
        Signed 64-bit numbers.
    """
    found: list[int] = []
    left = iter(slices)
    while some := list(islice(left, _AT_ONCE)):
        found += _digests([torch.cat(list(_taken(one))) for one in some])
    return found


def _taken(local_slice: LocalSlice) -> Iterator[torch.Tensor]:
    if local_slice.load is not None:
        local_slice = replace(local_slice, data=local_slice.load(), load=None)
    length = min(STRETCH, local_slice.length)
    for number in range(STRETCHES):
        start = (local_slice.length - length) * number // (STRETCHES - 1)
        yield elements(local_slice, start, length)


def _digests(samples: Sequence[torch.Tensor]) -> list[int]:
    values = [b""] * len(samples)
    for device in {sample.device for sample in samples}:
        here = [number for number, sample in enumerate(samples) if sample.device == device]
        copied = torch.cat([samples[number] for number in here]).cpu()
        parts = torch.split(copied, [samples[number].numel() for number in here])
        for number, part in zip(here, parts, strict=True):
            values[number] = hashlib.sha256(as_memoryview(part)).digest()
    return [int.from_bytes(value[:8], "little", signed=True) for value in values]
