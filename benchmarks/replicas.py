"""How fast digests of replicas are, beside a copy in memory: ``python -m benchmarks.replicas``.

Both are timed by the processor's time of one thread and by turns, so that what else runs on the
machine counts little. What the comparison costs a save, the cells of DDP and ZeRO-2 tell.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch

from canonical_saver.weights.digests import digests
from canonical_saver.weights.tensors import whole

SIZE = 2**28
"""Bytes: more than any cache has."""


@dataclass(frozen=True)
class Rates:
    """Bytes a second of a core.

    Attributes:
        digest: of the digests.
        copy: of ``Tensor.copy_``.
        ratio: how many times as long a digest takes as a copy; median of all rounds.
    """

    digest: float
    copy: float
    ratio: float


def measure(size: int = SIZE, rounds: int = 7) -> Rates:
    """Digest and copy a tensor of bfloat16 by turns.

    Args:
        size: its bytes.
        rounds: how often.
    """
    tensor = torch.randn(size // 2, dtype=torch.bfloat16)
    (local_slice,) = whole(tensor).slices
    other = torch.empty_like(tensor)
    ways: tuple[Callable[[], object], ...] = (
        lambda: digests([local_slice]),
        lambda: other.copy_(tensor),
    )
    for way in ways:  # the first of each makes its memory
        way()
    timed = [tuple(_seconds(way) for way in ways) for _ in range(rounds)]
    digest, copy = (median(of_way) for of_way in zip(*timed, strict=True))
    return Rates(size / digest, size / copy, median(mine / copied for mine, copied in timed))


def _seconds(work: Callable[[], object]) -> float:
    begun = time.thread_time()
    work()
    return time.thread_time() - begun


def main() -> None:
    """Print the rates."""
    torch.set_num_threads(1)
    found = measure()
    print(f"digest {found.digest / 1e9:.1f} GB/s, copy {found.copy / 1e9:.1f} GB/s on one core")
    print(f"a digest takes {found.ratio:.1f} times as long as a copy")


if __name__ == "__main__":
    main()
