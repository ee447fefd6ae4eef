"""Pieces of bytes on their way from one rank to another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
import torch.distributed as dist

from canonical_saver.collectives import Ranks
from canonical_saver.errors import LostRankError
from canonical_saver.messages import together


def send(ranks: Ranks, pieces: Iterable[torch.Tensor], to: int) -> None:
    """Send pieces to a rank, each announced, so that it learns if one cannot be made.

    Args:
        ranks: the ranks of the save.
        pieces: one-dimensional uint8 CPU tensors.
        to: the rank that receives as many, of the same sizes.
    """
    try:
        for piece in pieces:
            with together(ranks.rank):
                dist.send(torch.ones(1, dtype=torch.uint8), to, group=ranks.group)
                dist.send(piece, to, group=ranks.group)
    except LostRankError:
        raise
    except Exception:
        with together(ranks.rank):
            dist.send(torch.zeros(1, dtype=torch.uint8), to, group=ranks.group)
        raise


def receive(ranks: Ranks, sizes: Iterable[int], source: int) -> Iterator[torch.Tensor]:
    """Receive pieces of these sizes; ends early when the sender cannot go on.

    Yields:
        One-dimensional uint8 CPU tensors.
    """
    for size in sizes:
        announced = torch.empty(1, dtype=torch.uint8)
        piece = torch.empty(size, dtype=torch.uint8)
        with together(ranks.rank):
            dist.recv(announced, source, group=ranks.group)
            if not announced.item():
                return
            dist.recv(piece, source, group=ranks.group)
        yield piece
