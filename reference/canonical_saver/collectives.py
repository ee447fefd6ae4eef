"""The ranks that save together, and how they agree.

A save is a few steps. In each, every rank does its own part and tells rank 0 what came of it. Then
rank 0 does what needs all the answers, and tells everyone. If any part failed, all ranks raise the
same error, so that no rank is left waiting for one that has given up. A step takes a gather and a
broadcast: two messages a rank, where an all-gather takes one for each pair of ranks.
"""

from __future__ import annotations

import logging
import os
import pickle
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]

from canonical_saver.errors import BY_NAME, LostRankError, SaveError, WriteError, describe

T = TypeVar("T")
R = TypeVar("R")

MESSAGE = 4096
"""Bytes of the message that each rank sends in a step; what is longer follows by itself."""
LET_GO_SECONDS = 2.0
WAIT_SECONDS = 30.0
"""How long a rank waits for the others to begin the save before it says so."""

_HEAD = 8
_ROOM = MESSAGE - _HEAD
_log = logging.getLogger("canonical_saver")
_PROCESS = os.getpid()
"""A fork of this process has the same connection to the group's store, and must not use it."""
_cpu_groups: dict[int, dist.ProcessGroup] = {}
"""One group for CPU objects per default group without such a backend, by the default group's id."""


@dataclass(frozen=True)
class _Failure:
    """What went wrong on a rank.

    Attributes:
        step: what the rank was doing.
        kind: name of the error that all ranks raise.
        text: its message.
    """

    step: str
    kind: str
    text: str


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
        group = dist.group.WORLD
        assert group is not None
        if "cpu" not in {device.type for device in group._device_types}:
            # Objects and pieces of files are CPU tensors, which NCCL does not carry.
            if id(group) not in _cpu_groups:
                # Without a timeout of its own, a gloo group has one of 30 minutes, whatever the
                # default group was given.
                timeout = min(group._get_backend(d).options._timeout for d in group._device_types)
                _cpu_groups[id(group)] = dist.new_group(backend="gloo", timeout=timeout)
            group = _cpu_groups[id(group)]
        return cls(dist.get_rank(), dist.get_world_size(), group)

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
        everyone = self._to_first((message, cause and _failure(name, cause)))
        answer: tuple[Any, str, str] = (None, "", "")
        if self.rank == 0:
            failed = [(rank, failure) for rank, (_, failure) in enumerate(everyone) if failure]
            if not failed and on_first is not None:
                told = [message for message, _ in everyone]
                result, _, cause = _attempt(lambda: on_first(value, told))
                answer = (result, "", "")
                if isinstance(cause, SaveError):  # found by comparing ranks, and no fault of rank 0
                    answer = (None, type(cause).__name__, str(cause))
                elif cause:
                    failed = [(0, _failure(name, cause))]
            if failed:
                answer = (None, failed[0][1].kind, self._message(failed))
        return value, self._answered(answer, cause)

    def on_first(self, name: str, work: Callable[[], R]) -> R:
        """Do something on rank 0 only, and give every rank its result; collective.

        Args:
            name: what it is, for the error.
            work: called on rank 0; returns a small picklable value.

        Raises:
            SaveError: on every rank, when it failed.
        """
        answer: tuple[Any, str, str] = (None, "", "")
        cause = None
        if self.rank == 0:
            result, _, cause = _attempt(work)
            answer = (result, "", "")
            if cause:
                failure = _failure(name, cause)
                answer = (None, failure.kind, self._message([(0, failure)]))
        return self._answered(answer, cause)  # type: ignore[no-any-return]

    def exchange(self, name: str, work: Callable[[], T]) -> list[T]:
        """Do something on every rank, and give the small results to all of them, in rank order.

        Raises:
            SaveError: on every rank, when it failed on any.
        """
        return self.step(name, work, lambda own: own, lambda _, told: told)[1]

    def gather(self, value: T) -> list[T]:
        """Exchange one small picklable value a rank; collective. Returns them in rank order."""
        return self._from_first(self._to_first(value))  # type: ignore[no-any-return]

    def _answered(self, answer: tuple[Any, str, str], cause: Exception | None) -> Any:
        result, kind, text = self._from_first(answer)
        if kind:
            raise BY_NAME.get(kind, SaveError)(text) from cause
        return result

    def _message(self, failed: Sequence[tuple[int, _Failure]]) -> str:
        rank, failure = failed[0]
        if self.world_size == 1:
            return failure.text
        also = f" (and on {len(failed) - 1} other ranks)" if len(failed) > 1 else ""
        return f"rank {rank} failed in phase '{failure.step}'{also}: {failure.text}"

    @contextmanager
    def arriving(self) -> Iterator[None]:
        """Say which ranks are awaited when the first exchange of a save takes long.

        A save is one call that every rank makes. Where only some make it, they would wait without a
        word until the process group times out, after 10 to 30 minutes.
        """
        if self.group is None or os.getpid() != _PROCESS:
            yield
            return
        store = PrefixStore("canonical_saver", dist.distributed_c10d._get_default_store())
        begun = store.add(str(self.rank), 1)
        done = threading.Event()
        watch = threading.Thread(target=self._name_absent, args=(store, begun, done), daemon=True)
        watch.start()
        try:
            yield
        except LostRankError as error:
            raise LostRankError(f"{error}; is the save called on every rank?") from error
        finally:
            done.set()
            watch.join()

    def _name_absent(self, store: Store, begun: int, done: threading.Event) -> None:
        """Log which ranks have begun fewer saves than this one, if ``done`` is long in coming."""
        if done.wait(WAIT_SECONDS):
            return
        ranks = [str(rank) for rank in range(self.world_size)]
        absent = [int(r) for r in ranks if not store.check([r]) or store.add(r, 0) < begun]
        if absent:
            _log.warning(
                "rank %d has waited %.0f s for ranks %s to begin the save; every rank must call it",
                *(self.rank, WAIT_SECONDS, absent),
            )

    def _to_first(self, value: Any) -> list[Any]:
        """Bring one value a rank to rank 0, in rank order; the others get none."""
        if self.group is None:
            return [value]
        message = pickle.dumps(value)
        if self.rank != 0:
            with self.together():
                _exchange([_head(message)], lambda lent: dist.gather(lent[0], group=self.group))
                if len(message) > _ROOM:
                    dist.send(_bytes(message[_ROOM:]), 0, group=self.group)
            return []
        rows = torch.empty(self.world_size, MESSAGE, dtype=torch.uint8)
        with self.together():
            _exchange(
                [_head(message), *rows],
                lambda lent: dist.gather(lent[0], lent[1:], group=self.group),
            )
            values = [value]
            for rank, row in enumerate(rows[1:], 1):
                tail = torch.empty(max(0, _size(row) - _ROOM), dtype=torch.uint8)
                if len(tail):
                    dist.recv(tail, rank, group=self.group)
                values.append(_value(row, tail))
        return values

    def _from_first(self, value: Any) -> Any:
        """Give every rank the value of rank 0."""
        if self.group is None:
            return value
        message = pickle.dumps(value) if self.rank == 0 else b""
        head = _head(message)
        with self.together():
            _exchange([head.view(-1)], lambda lent: dist.broadcast(lent[0], 0, group=self.group))
            tail = _bytes(message[_ROOM:])
            if left := max(0, _size(head) - _ROOM):
                tail = tail if self.rank == 0 else torch.empty(left, dtype=torch.uint8)
                _exchange(
                    [tail.view(-1)], lambda lent: dist.broadcast(lent[0], 0, group=self.group)
                )
        return value if self.rank == 0 else _value(head, tail)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Say what it means when the process group fails."""
        try:
            yield
        except RuntimeError as error:
            raise LostRankError(
                f"rank {self.rank} lost the other ranks in the middle of the save; one of them has "
                f"probably died, see its log: {error}"
            ) from error


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


def _failure(step: str, error: Exception) -> _Failure:
    kind = WriteError.__name__ if isinstance(error, OSError) else type(error).__name__
    # A class of ours is that of the error on every rank, and need not be in its text.
    return _Failure(step, kind, str(error) if isinstance(error, SaveError) else describe(error))


def _exchange(lent: list[torch.Tensor], collective: Callable[[list[torch.Tensor]], object]) -> None:
    """Run a collective, and return only when no thread of the group holds any tensor lent to it.

    A thread of gloo frees its tensors after it has said that all is done, and needs the interpreter
    for it. DDP waits for that thread without giving up the interpreter, where it is the last to
    hold the group: when a model outlives ``destroy_process_group``.

    Args:
        lent: views that nobody else holds; emptied.
        collective: called with ``lent``.
    """
    collective(lent)
    held = [weakref.ref(tensor) for tensor in lent]
    lent.clear()
    deadline = time.monotonic() + LET_GO_SECONDS
    while any(tensor() is not None for tensor in held) and time.monotonic() < deadline:
        time.sleep(0.0002)


def _bytes(text: bytes) -> torch.Tensor:
    if not text:
        return torch.empty(0, dtype=torch.uint8)
    return torch.frombuffer(bytearray(text), dtype=torch.uint8)


def _head(message: bytes) -> torch.Tensor:
    """The size of a message and its beginning, uint8 of shape ``[MESSAGE]``."""
    text = len(message).to_bytes(_HEAD, "little") + message[:_ROOM]
    return _bytes(text.ljust(MESSAGE, b"\0"))


def _size(head: torch.Tensor) -> int:
    return int.from_bytes(bytes(head[:_HEAD].tolist()), "little")


def _value(head: torch.Tensor, tail: torch.Tensor) -> Any:
    """What a message of one of our ranks says; its end is in ``tail``."""
    room = min(_size(head), _ROOM)
    return pickle.loads(head[_HEAD : _HEAD + room].numpy().tobytes() + tail.numpy().tobytes())
