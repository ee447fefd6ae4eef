"""A digest of a tensor's bytes, computed where they are.

It depends on the bits and their order alone: not on the device, on strides or on the size of
pieces, and a NaN counts by its bits. It tells apart what differs by accident; nobody is expected to
forge one.

Bytes are read as 64-bit words. Each word is multiplied by an odd number of its own, the upper half
of the product is folded into the lower (or two flipped signs would cancel each other), and the
results of a block are summed, modulo 2**64. The sums of the blocks are words again, until one word
is left. Products of 8-bit matrices would be more than twice as fast, but some processors saturate
their sums: ranks on two kinds of machines would be said to differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import torch

from canonical_saver.weights.tensors import LocalSlice, elements

BLOCK = 2**16
"""Words of a block: 512 KiB, so that on a processor all passes but the first read its cache."""

DEVICE_BLOCKS = 8
"""Blocks at a time on an accelerator (4 MiB), where starting a kernel takes as long as 1 MiB."""

_WORD = 8


def digests(slices: Sequence[LocalSlice]) -> list[int]:
    """Digest the elements of each run, waiting once for each device.

    Extra memory is two pieces of ``BLOCK`` words (on an accelerator ``DEVICE_BLOCKS`` times as
    many), and 8 bytes for each block of the largest run.

    Returns:
        Signed 64-bit numbers; 0 for a run without elements.
    """
    values = [0] * len(slices)
    by_device: dict[torch.device, list[int]] = {}
    for number, local_slice in enumerate(slices):
        if local_slice.length:
            by_device.setdefault(local_slice.data.device, []).append(number)
    for device, numbers in by_device.items():
        digester = _Digester(device)
        found = torch.empty(len(numbers), dtype=torch.int64, device=device)
        for place, number in enumerate(numbers):
            digester.digest(slices[number], found[place : place + 1])
        for number, value in zip(numbers, found.tolist(), strict=True):
            values[number] = value
    return values


class _Digester:
    """Digests what lies on one device, always in the same memory.

    New memory for each piece, with a result kept behind each, would leave holes that together are
    as large as what is digested.

    Args:
        device: the device.
    """

    def __init__(self, device: torch.device) -> None:
        blocks = torch.get_num_threads() if device.type == "cpu" else DEVICE_BLOCKS
        self._piece = blocks * BLOCK
        self._factors = _factors(device)
        self._product, self._upper = torch.empty(2, self._piece, dtype=torch.int64, device=device)

    def digest(self, local_slice: LocalSlice, found: torch.Tensor) -> None:
        """Digest a run that has elements.

        Args:
            local_slice: the run.
            found: where the digest goes, of shape ``[1]``.
        """
        size = local_slice.length * local_slice.data.element_size()
        blocks = -(-size // (BLOCK * _WORD))
        sums = found if blocks == 1 else torch.empty(blocks, dtype=found.dtype, device=found.device)
        self._sum_blocks(self._words(local_slice), sums)
        while blocks > 1:
            blocks = -(-blocks // BLOCK)
            words, sums = sums, found if blocks == 1 else torch.empty_like(sums[:blocks])
            self._sum_blocks(iter(torch.split(words, self._piece)), sums)

    def _words(self, local_slice: LocalSlice) -> Iterator[torch.Tensor]:
        """Yield pieces of a run as 64-bit words, the last word filled up with zeros."""
        step = self._piece * _WORD // local_slice.data.element_size()
        for start in range(0, local_slice.length, step):
            piece = elements(local_slice, start, min(step, local_slice.length - start))
            missing = -piece.numel() % _WORD
            if missing:
                piece = torch.nn.functional.pad(piece, (0, missing))
            elif piece.storage_offset() % _WORD or piece.data_ptr() % _WORD:
                piece = piece.clone()  # words can only be read where words may begin
            yield piece.view(torch.int64)

    def _sum_blocks(self, pieces: Iterator[torch.Tensor], sums: torch.Tensor) -> None:
        """Sum each block of words into one; all pieces but the last are full."""
        done = 0
        for words in pieces:
            whole = len(words) // BLOCK
            if whole:
                full = words[: whole * BLOCK].view(whole, BLOCK)
                torch.sum(self._mixed(full), 1, out=sums[done : done + whole])
            if whole * BLOCK < len(words):
                rest = words[whole * BLOCK :].view(1, -1)
                torch.sum(self._mixed(rest), 1, out=sums[done + whole : done + whole + 1])
            done += whole

    def _mixed(self, words: torch.Tensor) -> torch.Tensor:
        """Multiply words by their factors, and fold the upper halves into the lower."""
        product: torch.Tensor = self._product[: words.numel()].view(words.shape)
        upper = self._upper[: words.numel()].view(words.shape)
        torch.mul(words, self._factors[: words.shape[1]], out=product)
        torch.bitwise_right_shift(product, 32, out=upper)
        product ^= upper
        return product


@lru_cache(maxsize=8)
def _factors(device: torch.device) -> torch.Tensor:
    """One odd number for each word of a block, the same in every process."""
    generator = torch.Generator().manual_seed(0x5EED)
    numbers = torch.randint(-(2**63), 2**63 - 1, (BLOCK,), generator=generator)
    return (numbers | 1).to(device)
