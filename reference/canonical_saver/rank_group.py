"""How several ranks take the steps of a save together.

If any rank failed in its part, all of them raise the same error, so that none is left waiting for
one that has given up. How messages travel is in ``messages``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from canonical_saver.collectives import Ranks
from canonical_saver.errors import (
    LostRankError,
    ProofError,
    RequestError,
    SaveError,
    VerifyError,
    WeightsError,
    WriteError,
    describe,
)
from canonical_saver.messages import from_first
from canonical_saver.messages import to_first as tell_first

T = TypeVar("T")
R = TypeVar("R")

Failure = tuple[str, str]
"""What went wrong on a rank: the name of the error that all ranks raise, and its message."""

BY_NAME: dict[str, type[SaveError]] = {
    kind.__name__: kind
    for kind in (SaveError, RequestError, WeightsError, WriteError, VerifyError, ProofError)
}
"""Every kind of error by its name, to raise on all ranks what one rank met."""


@dataclass(frozen=True)
class RankGroup(Ranks):
    """The ranks of a process group."""

    def step(
        self,
        name: str,
        work: Callable[[], T],
        to_first: Callable[[T], Any] = lambda _: None,
        on_first: Callable[[T, list[Any]], R] | None = None,
    ) -> tuple[T, R]:
        """See :meth:`canonical_saver.collectives.Ranks.step`."""
        value, message, cause = _attempt(work, to_first)
        everyone = tell_first(self, (message, cause and _failure(cause)))
        failed = [(rank, failure) for rank, (_, failure) in enumerate(everyone) if failure]

        def decide() -> Any:
            return on_first and on_first(value, [message for message, _ in everyone])

        return value, self._decided(name, decide, failed, cause)

    def on_first(self, name: str, work: Callable[[], R]) -> R:
        """See :meth:`canonical_saver.collectives.Ranks.on_first`."""
        return self._decided(name, work, [], None, blamed=True)  # type: ignore[no-any-return]

    def gather(self, value: T) -> list[T]:
        """See :meth:`canonical_saver.collectives.Ranks.gather`."""
        return from_first(self, tell_first(self, value))  # type: ignore[no-any-return]

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
        result, kind, text = from_first(self, (result, kind, text))
        if kind:
            raise BY_NAME.get(kind, SaveError)(text) from cause
        return result


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
