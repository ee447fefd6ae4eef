"""The ranks that save together, and how they agree.

Each phase of a save ends in one collective in which every rank tells whether it failed. If any did,
all raise the same error, so that no rank is left waiting for one that has given up.
"""

from __future__ import annotations

import logging
import os
import pickle
import threading
import time
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]

from canonical_saver.errors import BY_NAME, LostRankError, SaveError, WriteError, describe

LET_GO_SECONDS = 2.0
WAIT_SECONDS = 30.0
"""How long a rank waits for the others to begin the save before it says so."""

_log = logging.getLogger("canonical_saver")
_PROCESS = os.getpid()
"""A fork of this process has the same connection to the group's store, and must not use it."""

_cpu_groups: dict[int, dist.ProcessGroup] = {}
"""One group for CPU objects per default group without such a backend, by the default group's id."""


@dataclass
class Exchange:
    """Values that travel with the agreement at the end of a phase.

    Attributes:
        mine: this rank's small picklable value, to be set within the phase.
        everyone: those of all ranks in rank order, after the phase.
    """

    mine: Any = None
    everyone: list[Any] = field(default_factory=list)


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

    def gather(self, value: Any) -> list[Any]:
        """Exchange one small picklable value a rank; collective. Returns them in rank order."""
        if self.group is None:
            return [value]
        told = torch.frombuffer(bytearray(pickle.dumps(value)), dtype=torch.uint8)
        with self._together():
            sizes = self._all_gather(torch.tensor([len(told)])).flatten().tolist()
            padded = torch.nn.functional.pad(told, (0, max(sizes) - len(told)))
            rows = self._all_gather(padded)
        return [pickle.loads(row[:size].numpy()) for row, size in zip(rows, sizes, strict=True)]

    def share(self, value: Any) -> Any:
        """Give every rank the value of rank 0; collective."""
        return self.gather(value if self.rank == 0 else None)[0]

    @contextmanager
    def phase(self, name: str) -> Iterator[Exchange]:
        """Run a phase that either succeeds on all ranks or raises the same error on all.

        Args:
            name: what the phase does, for the error.

        Yields:
            What the ranks tell each other at the end of the phase, at no further cost.

        Raises:
            SaveError: on every rank, when the phase failed on any; names the first such rank.
        """
        failure: Exception | None = None
        exchange = Exchange()
        try:
            yield exchange
        except LostRankError:
            raise  # a last word would wait for the lost until the timeout, again
        except Exception as error:
            failure = error
        told = None
        if failure is not None:
            kind = type(failure).__name__
            if isinstance(failure, OSError):
                kind = WriteError.__name__
            # A class of ours is that of the error on every rank, and need not be in its text.
            ours = isinstance(failure, SaveError)
            told = (kind, str(failure) if ours else describe(failure))
        gathered = self.gather((told, None if told else exchange.mine))
        reports = [report for report, _ in gathered]
        for rank, report in enumerate(reports):
            if report is None:
                continue
            kind, text = report
            others = sum(other is not None for other in reports) - 1
            also = f" (and on {others} other ranks)" if others else ""
            message = text
            if self.world_size > 1:
                message = f"rank {rank} failed in phase '{name}'{also}: {text}"
            raise BY_NAME.get(kind, SaveError)(message) from failure
        exchange.everyone = [mine for _, mine in gathered]

    def send(self, pieces: Iterable[torch.Tensor], to: int) -> None:
        """Send pieces of bytes to a rank, each announced, so that it learns if one cannot be made.

        Args:
            pieces: one-dimensional uint8 CPU tensors.
            to: the rank that receives as many, of the same sizes.
        """
        try:
            for piece in pieces:
                with self._together():
                    dist.send(torch.ones(1, dtype=torch.uint8), to, group=self.group)
                    dist.send(piece, to, group=self.group)
        except LostRankError:
            raise
        except Exception:
            with self._together():
                dist.send(torch.zeros(1, dtype=torch.uint8), to, group=self.group)
            raise

    def receive(self, sizes: Iterable[int], source: int) -> Iterator[torch.Tensor]:
        """Receive pieces of these sizes; ends early when the sender cannot go on.

        Yields:
            One-dimensional uint8 CPU tensors.
        """
        for size in sizes:
            announced = torch.empty(1, dtype=torch.uint8)
            piece = torch.empty(size, dtype=torch.uint8)
            with self._together():
                dist.recv(announced, source, group=self.group)
                if not announced.item():
                    return
                dist.recv(piece, source, group=self.group)
            yield piece

    def _all_gather(self, own: torch.Tensor) -> torch.Tensor:
        """Stack one tensor a rank, and return only when no thread of the group holds any of them.

        A thread of gloo frees what it gathered after it has said that all is done, and needs the
        interpreter for it. DDP waits for that thread without giving up the interpreter, where it is
        the last to hold the group: when a model outlives ``destroy_process_group``.
        """
        stacked = own.new_empty(self.world_size, len(own))
        lent = [own.view(-1), *stacked]
        dist.all_gather(lent[1:], lent[0], group=self.group)
        held = [weakref.ref(tensor) for tensor in lent]
        lent.clear()
        deadline = time.monotonic() + LET_GO_SECONDS
        while any(tensor() is not None for tensor in held) and time.monotonic() < deadline:
            time.sleep(0.0002)
        return stacked

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Say what it means when the process group fails."""
        try:
            yield
        except RuntimeError as error:
            raise LostRankError(
                f"rank {self.rank} lost the other ranks in the middle of the save; one of them has "
                f"probably died, see its log: {error}"
            ) from error
