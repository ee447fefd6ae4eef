"""One measurement: seconds, memory and bytes of one save, as the kernel counts them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.contestants import Contestant
from benchmarks.engines import Trained
from benchmarks.kernel import peak_memory, reset_peak, resident_memory, written
from benchmarks.ranks import barrier, gather, rank
from benchmarks.ready import make_ready


@dataclass(frozen=True)
class Cost:
    """What one save cost.

    Attributes:
        seconds: from the first rank's start to the last one's return.
        durable_seconds: the same and until everything is on the disk.
        memory: for each rank, bytes by which its memory went over what it was before, at most.
        written: bytes that all ranks gave to the disk (``write_bytes``).
        phases: seconds of each phase of the reference on rank 0, waiting for others included.
    """

    seconds: float
    durable_seconds: float
    memory: tuple[int, ...]
    written: int
    phases: dict[str, float]


def measure(contestant: Contestant, trained: Trained, folder: Path, *, durable: bool) -> Cost:
    """Save once into a new folder; collective.

    Args:
        contestant: the way to save.
        trained: the model.
        folder: where; what else lies beside it is removed.
        durable: whether the contestant flushes to disk where it does so of itself. If not, its
            ``fsync`` does nothing, and the flush is timed apart, after it.
    """
    flushing = nullcontext if durable else _without_flushing
    with flushing():
        make_ready(lambda former: contestant(trained, former), folder, trained.size)
    before = resident_memory()
    reset_peak()
    before_it = written()
    barrier()
    begun = time.perf_counter()
    with _timed_phases() as phases, flushing():
        contestant(trained, folder)
    barrier()
    seconds = time.perf_counter() - begun
    durable_seconds = seconds
    peak = max(0, peak_memory() - before)
    given = written() - before_it
    if rank() == 0:
        flush(folder)
        if durable:
            durable_seconds = time.perf_counter() - begun
    barrier()
    if not durable:
        durable_seconds = time.perf_counter() - begun
    everyone = gather((peak, given))
    return Cost(
        seconds,
        durable_seconds,
        tuple(memory for memory, _ in everyone),
        sum(count for _, count in everyone),
        phases,
    )


def flush(folder: Path) -> None:
    """Bring a folder and all files in it to the disk."""
    for path in [folder, *folder.rglob("*")]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def _without_flushing() -> Iterator[None]:
    from canonical_saver import file_io

    with (
        patch.object(os, "fsync", lambda _: None),
        patch.object(file_io, "_start_writeback", lambda *_: None),
    ):
        yield


@contextmanager
def _timed_phases() -> Iterator[dict[str, float]]:
    from canonical_saver.collectives import Ranks

    found: dict[str, float] = {}

    def timed(plain: Callable[..., Any]) -> Callable[..., Any]:
        def call(ranks: Ranks, name: str, *parts: Any, **named: Any) -> Any:
            begun = time.perf_counter()
            result = plain(ranks, name, *parts, **named)
            found[name] = found.get(name, 0.0) + time.perf_counter() - begun
            return result

        return call

    kind = type(Ranks.current())
    with (
        patch.object(kind, "step", timed(kind.step)),
        patch.object(kind, "on_first", timed(kind.on_first)),
    ):
        yield found
