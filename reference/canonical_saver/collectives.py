"""The ranks that save together: here a process by itself, which has nobody to agree with.

A save is a few steps. In each, every rank does its own part and tells rank 0 what came of it. Then
rank 0 does what needs all the answers, and tells everyone. How several ranks do that, and what they
do when one of them fails, is in ``rank_group``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch.distributed as dist

from canonical_saver.errors import SaveError, WriteError, describe

T = TypeVar("T")
R = TypeVar("R")

PROCESS = os.getpid()
"""A fork of this process has the same connection to the group's store, and must not use it."""


@dataclass(frozen=True)
class Ranks:
    """The ranks of one save.

    Attributes:
        rank: this process among all, from 0.
        world_size: how many processes save together.
        group: the group in which CPU tensors travel, None without ``torch.distributed``.
    """

    rank: int = 0
    world_size: int = 1
    group: dist.ProcessGroup | None = None

    @classmethod
    def current(cls) -> Ranks:
        """Find the ranks of this process; one rank when ``torch.distributed`` is not in use."""
        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        from canonical_saver.messages import cpu_group
        from canonical_saver.rank_group import RankGroup

        return RankGroup(dist.get_rank(), dist.get_world_size(), cpu_group())

    def step(
        self,
        name: str,
        work: Callable[[], T],
        to_first: Callable[[T], Any] = lambda _: None,
        on_first: Callable[[T, list[Any]], R] | None = None,
    ) -> tuple[T, R]:
        """Do a part of the save on every rank, then on rank 0 what depends on all; collective.

        Args:
            name: what the step does, for the error.
            work: this rank's part.
            to_first: what rank 0 is to know of the part, a small picklable value.
            on_first: called on rank 0 when no rank failed, with its own part and what every rank
                told in rank order; returns a small picklable value.

        Returns:
            This rank's part, and what ``on_first`` returned on rank 0 (None without it).

        Raises:
            SaveError: on every rank, when any of them failed; names the first such rank.
        """
        with _errors_of_ours():
            value = work()
            told = [to_first(value)]
            return value, on_first and on_first(value, told)  # type: ignore[return-value]

    def on_first(self, name: str, work: Callable[[], R]) -> R:
        """Do something on rank 0 only, and give every rank its result; collective.

        Args:
            name: what it is, for the error.
            work: called on rank 0; returns a small picklable value.

        Raises:
            SaveError: on every rank, when it failed.
        """
        with _errors_of_ours():
            return work()

    def exchange(self, name: str, work: Callable[[], T]) -> list[T]:
        """Do something on every rank, and give the small results to all of them, in rank order.

        Raises:
            SaveError: on every rank, when it failed on any.
        """
        return self.step(name, work, lambda own: own, lambda _, told: told)[1]

    def gather(self, value: T) -> list[T]:
        """Exchange one small picklable value a rank; collective. Returns them in rank order."""
        return [value]


@contextmanager
def _errors_of_ours() -> Iterator[None]:
    try:
        yield
    except SaveError:
        raise
    except Exception as error:
        kind = WriteError if isinstance(error, OSError) else SaveError
        raise kind(describe(error)) from error
