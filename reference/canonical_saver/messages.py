"""Small messages among the ranks of a process group, and ranks that do not come.

An exchange takes a gather and a broadcast: two messages a rank, where an all-gather takes one for
each pair of ranks.
"""

from __future__ import annotations

import logging
import os
import pickle
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]

from canonical_saver.collectives import PROCESS, Ranks
from canonical_saver.errors import LostRankError

MESSAGE = 4096
"""Bytes of the message that each rank sends in a step; what is longer follows by itself."""
LET_GO_SECONDS = 2.0
WAIT_SECONDS = 30.0
"""How long a rank waits for the others to begin the save before it says so."""

_HEAD = 8
_ROOM = MESSAGE - _HEAD
_log = logging.getLogger("canonical_saver")
_cpu_groups: dict[int, dist.ProcessGroup] = {}
"""One group for CPU objects per default group without such a backend, by the default group's id."""


def cpu_group() -> dist.ProcessGroup:
    """The default process group, or one of the same ranks in which CPU tensors travel."""
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
    return group


@contextmanager
def arriving(ranks: Ranks) -> Iterator[None]:
    """Say which ranks are awaited when the first exchange of a save takes long.

    A save is one call that every rank makes. Where only some make it, they would wait without a
    word until the process group times out, after 10 to 30 minutes.
    """
    if ranks.group is None or os.getpid() != PROCESS:
        yield
        return
    store = PrefixStore("canonical_saver", dist.distributed_c10d._get_default_store())
    begun = store.add(str(ranks.rank), 1)
    done = threading.Event()
    watch = threading.Thread(target=_name_absent, args=(ranks, store, begun, done), daemon=True)
    watch.start()
    try:
        yield
    except LostRankError as error:
        raise LostRankError(f"{error}; is the save called on every rank?") from error
    finally:
        done.set()
        watch.join()


def _name_absent(ranks: Ranks, store: Store, begun: int, done: threading.Event) -> None:
    """Log which ranks have begun fewer saves than this one, if ``done`` is long in coming."""
    if done.wait(WAIT_SECONDS):
        return
    everyone = [str(rank) for rank in range(ranks.world_size)]
    absent = [int(r) for r in everyone if not store.check([r]) or store.add(r, 0) < begun]
    if absent:
        _log.warning(
            "rank %d has waited %.0f s for ranks %s to begin the save; every rank must call it",
            *(ranks.rank, WAIT_SECONDS, absent),
        )


def to_first(ranks: Ranks, value: Any) -> list[Any]:
    """Bring one value a rank to rank 0, in rank order; the others get none."""
    message = pickle.dumps(value)
    if ranks.rank != 0:
        with together(ranks.rank):
            _exchange([_head(message)], lambda lent: dist.gather(lent[0], group=ranks.group))
            if len(message) > _ROOM:
                dist.send(_bytes(message[_ROOM:]), 0, group=ranks.group)
        return []
    rows = torch.empty(ranks.world_size, MESSAGE, dtype=torch.uint8)
    with together(ranks.rank):
        _exchange(
            [_head(message), *rows],
            lambda lent: dist.gather(lent[0], lent[1:], group=ranks.group),
        )
        values = [value]
        for rank, row in enumerate(rows[1:], 1):
            tail = torch.empty(max(0, _size(row) - _ROOM), dtype=torch.uint8)
            if len(tail):
                dist.recv(tail, rank, group=ranks.group)
            values.append(_value(row, tail))
    return values


def from_first(ranks: Ranks, value: Any) -> Any:
    """Give every rank the value of rank 0."""
    message = pickle.dumps(value) if ranks.rank == 0 else b""
    head = _head(message)
    with together(ranks.rank):
        _exchange([head.view(-1)], lambda lent: dist.broadcast(lent[0], 0, group=ranks.group))
        tail = _bytes(message[_ROOM:])
        if left := max(0, _size(head) - _ROOM):
            tail = tail if ranks.rank == 0 else torch.empty(left, dtype=torch.uint8)
            _exchange([tail.view(-1)], lambda lent: dist.broadcast(lent[0], 0, group=ranks.group))
    return value if ranks.rank == 0 else _value(head, tail)


@contextmanager
def together(rank: int) -> Iterator[None]:
    """Say what it means when the process group fails."""
    try:
        yield
    except RuntimeError as error:
        raise LostRankError(
            f"rank {rank} lost the other ranks in the middle of the save; one of them has "
            f"probably died, see its log: {error}"
        ) from error


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
