"""A digest of a tensor's bytes, computed where they are.

It depends on the bits and their order alone: not on the device, on strides or on the size of
pieces, and a NaN counts by its bits. It tells apart what differs by accident; nobody is expected to
forge one.

Bytes are read as 64-bit words. Each word is multiplied by an odd number of its own, the upper half
of the product is folded into the lower (or two flipped signs would cancel each other), and the
results of a block are summed, modulo 2**64. The sums of the blocks are words again, until one word
is left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import torch

from canonical_saver.sources import Run, elements

BLOCK = 2**16
"""Words of a block: 512 KiB, so that on a processor all passes but the first read its cache."""

DEVICE_BLOCKS = 8
"""Blocks at a time on an accelerator (4 MiB), where starting a kernel takes as long as 1 MiB."""

_WORD = 8


def digests(runs: Sequence[Run]) -> list[int]:
    """Digest the elements of each run, waiting once for each device.

    Extra memory is three pieces of ``BLOCK`` words (on an accelerator ``DEVICE_BLOCKS`` times as
    many), and 8 bytes for each block of the largest run.

    Returns:
        Signed 64-bit numbers; 0 for a run without elements.
    """
    found = [_digest(run) for run in runs]
    values = [0] * len(found)
    devices = dict.fromkeys(word.device for word in found if word is not None)
    for device in devices:
        numbers = [n for n, word in enumerate(found) if word is not None and word.device == device]
        words = torch.cat([word for n in numbers if (word := found[n]) is not None])
        for number, value in zip(numbers, words.tolist(), strict=True):
            values[number] = value
    return values


def _digest(run: Run) -> torch.Tensor | None:
    """The digest as a tensor of one word where the run lies; None without elements."""
    sums = [_block_sums(words) for words in _words(run)]
    if not sums:
        return None
    words = torch.cat(sums) if len(sums) > 1 else sums[0]
    while len(words) > 1:
        words = torch.cat(
            [_block_sums(piece) for piece in torch.split(words, _piece(words.device))]
        )
    return words


def _words(run: Run) -> Iterator[torch.Tensor]:
    """Yield pieces of a run as 64-bit words, the last word filled up with zeros."""
    step = _piece(run.data.device) * _WORD // run.data.element_size()
    for start in range(0, run.length, step):
        piece = elements(run, start, min(step, run.length - start))
        missing = -piece.numel() % _WORD
        if missing:
            piece = torch.nn.functional.pad(piece, (0, missing))
        elif piece.storage_offset() % _WORD or piece.data_ptr() % _WORD:
            piece = piece.clone()  # words can only be read where words may begin
        yield piece.view(torch.int64)


def _piece(device: torch.device) -> int:
    """How many words are digested at a time; it changes no digest."""
    return BLOCK * (torch.get_num_threads() if device.type == "cpu" else DEVICE_BLOCKS)


def _block_sums(words: torch.Tensor) -> torch.Tensor:
    """Sum each block of words into one; the last block may be shorter."""
    factors = _factors(words.device)
    whole = len(words) // BLOCK * BLOCK
    sums = []
    if whole:
        sums.append(_folded(words[:whole].view(-1, BLOCK), factors).sum(1))
    if whole < len(words):
        sums.append(_folded(words[whole:], factors[: len(words) - whole]).sum(0, keepdim=True))
    return torch.cat(sums) if len(sums) > 1 else sums[0]


def _folded(words: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    product = words * factors
    product ^= product >> 32
    return product


@lru_cache(maxsize=8)
def _factors(device: torch.device) -> torch.Tensor:
    """One odd number for each word of a block, the same in every process."""
    generator = torch.Generator().manual_seed(0x5EED)
    numbers = torch.randint(-(2**63), 2**63 - 1, (BLOCK,), generator=generator)
    return (numbers | 1).to(device)
