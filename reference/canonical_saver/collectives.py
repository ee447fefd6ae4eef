"""The ranks that save together, and how they agree.

A save is a few steps. In each, every rank does its own part and tells rank 0 what came of it. Then
rank 0 does what needs all the answers, and tells everyone. If any part failed, all ranks raise the
same error, so that no rank is left waiting for one that has given up. How messages travel is in
``messages``, which a single process does without.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch.distributed as dist

from canonical_saver.errors import BY_NAME, LostRankError, SaveError, WriteError, describe

T = TypeVar("T")
R = TypeVar("R")

Failure = tuple[str, str]
"""What went wrong on a rank: the name of the error that all ranks raise, and its message."""

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

        return cls(dist.get_rank(), dist.get_world_size(), cpu_group())

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
        value, message, cause = _attempt(work, to_first)
        everyone = self._to_first((message, cause and _failure(cause)))
        failed = [(rank, failure) for rank, (_, failure) in enumerate(everyone) if failure]

        def decide() -> Any:
            return on_first and on_first(value, [message for message, _ in everyone])

        return value, self._decided(name, decide, failed, cause)

    def on_first(self, name: str, work: Callable[[], R]) -> R:
        """Do something on rank 0 only, and give every rank its result; collective.

        Args:
            name: what it is, for the error.
            work: called on rank 0; returns a small picklable value.

        Raises:
            SaveError: on every rank, when it failed.
        """
        return self._decided(name, work, [], None, blamed=True)  # type: ignore[no-any-return]

    def exchange(self, name: str, work: Callable[[], T]) -> list[T]:
        """Do something on every rank, and give the small results to all of them, in rank order.

        Raises:
            SaveError: on every rank, when it failed on any.
        """
        return self.step(name, work, lambda own: own, lambda _, told: told)[1]

    def gather(self, value: T) -> list[T]:
        """Exchange one small picklable value a rank; collective. Returns them in rank order."""
        return self._from_first(self._to_first(value))  # type: ignore[no-any-return]

    def arriving(self) -> AbstractContextManager[None]:
        """Say which ranks are awaited when the first exchange of a save takes long."""
        if self.group is None:
            return nullcontext()
        from canonical_saver.messages import arriving

        return arriving(self)

    def _decided(
        self,
        name: str,
        work: Callable[[], Any],
        failed: Sequence[tuple[int, Failure]],
        cause: Exception | None,
        *,
        blamed: bool = False,
    ) -> Any:
        """Do something on rank 0 if no rank has failed, and give every rank its result.

        Args:
            name: what it is, for the error.
            work: called on rank 0.
            failed: the ranks that have failed, on rank 0.
            cause: what went wrong on this rank.
            blamed: whether an error of ``work`` is one of rank 0, and not found by comparing ranks.
        """
        result, kind, text = None, "", ""
        if self.rank == 0 and not failed:
            result, _, cause = _attempt(work)
            if cause:
                failed = [(0, _failure(cause))]
                text = "" if blamed or not isinstance(cause, SaveError) else str(cause)
        if failed:
            rank, (kind, message) = failed[0]
            also = f" (and on {len(failed) - 1} other ranks)" if len(failed) > 1 else ""
            if self.world_size > 1:
                message = f"rank {rank} failed in phase '{name}'{also}: {message}"
            text = text or message
        result, kind, text = self._from_first((result, kind, text))
        if kind:
            raise BY_NAME.get(kind, SaveError)(text) from cause
        return result

    def _to_first(self, value: Any) -> list[Any]:
        """Bring one value a rank to rank 0, in rank order; the others get none."""
        if self.group is None:
            return [value]
        from canonical_saver.messages import to_first

        return to_first(self, value)

    def _from_first(self, value: Any) -> Any:
        """Give every rank the value of rank 0."""
        if self.group is None:
            return value
        from canonical_saver.messages import from_first

        return from_first(self, value)


def _attempt(
    work: Callable[[], T], to_first: Callable[[T], Any] = lambda _: None
) -> tuple[Any, Any, Exception | None]:
    """Do something: its result, what to tell of it, and what went wrong."""
    try:
        value = work()
        return value, to_first(value), None
    except LostRankError:
        raise  # a last word would wait for the lost until the timeout, again
    except Exception as error:
        return None, None, error


def _failure(error: Exception) -> Failure:
    kind = WriteError.__name__ if isinstance(error, OSError) else type(error).__name__
    # A class of ours is that of the error on every rank, and need not be in its text.
    return kind, str(error) if isinstance(error, SaveError) else describe(error)
