"""One measurement: seconds, memory and bytes of one save, as the kernel counts them."""

from __future__ import annotations

import gc
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist

from benchmarks.contestants import Contestant, rank
from benchmarks.engines import Trained

TRIES = 3
"""How often at most a save is made ready for."""

_best: dict[str, float] = {}


@dataclass(frozen=True)
class Cost:
    """What one save cost.

    Attributes:
        seconds: from the first rank's start to the last one's return.
        durable_seconds: the same and until everything is on the disk; None if that was not waited
            for.
        memory: for each rank, bytes by which its memory went over what it was before, at most.
        written: bytes that all ranks gave to the disk (``write_bytes``).
        phases: seconds of each phase of the reference on rank 0, waiting for others included.
    """

    seconds: float
    durable_seconds: float | None
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
    make_ready(contestant, trained, folder)
    _renew(folder)
    before = resident_memory()
    reset_peak()
    written = _written()
    _barrier()
    begun = time.perf_counter()
    with _timed_phases() as phases:
        if durable:
            contestant(trained, folder)
        else:
            with _without_flushing():
                contestant(trained, folder)
    _barrier()
    seconds = time.perf_counter() - begun
    durable_seconds = seconds
    peak = max(0, peak_memory() - before)
    written = _written() - written
    if rank() == 0:
        flush(folder)
        if durable:
            durable_seconds = time.perf_counter() - begun
    _barrier()
    if not durable:
        durable_seconds = time.perf_counter() - begun
    everyone = _gather((peak, written))
    return Cost(
        seconds,
        durable_seconds,
        tuple(memory for memory, _ in everyone),
        sum(count for _, count in everyone),
        phases,
    )


def make_ready(contestant: Contestant, trained: Trained, folder: Path) -> None:
    """Have as much memory at hand as a save will take, by saving; collective.

    A virtual machine gives free memory back to its host, and the first write to it afterwards is
    up to ten times slower: whoever meets such pages would pay for all. What was freed last is given
    out first, to those who ask for pieces of the same sizes. So the contestant itself saves
    unmeasured just before, again if that went less than half as fast as it ever did.

    Args:
        contestant: the way to save.
        trained: the model.
        folder: where.
    """
    for _ in range(TRIES):
        _renew(folder)
        begun = time.perf_counter()
        with _without_flushing():
            contestant(trained, folder)
        _barrier()
        seconds = time.perf_counter() - begun
        best = _best.get(folder.name)
        _best[folder.name] = min(seconds, best or seconds)
        if rank_0_says(best is None or seconds < 2 * best):
            break


def rank_0_says(value: bool) -> bool:
    """What rank 0 thinks of something; collective."""
    told: list[Any] = [value]
    if dist.is_initialized():
        dist.broadcast_object_list(told)
    return bool(told[0])


def _renew(folder: Path) -> None:
    gc.collect()
    _barrier()
    if rank() == 0:
        shutil.rmtree(folder.parent, ignore_errors=True)
        folder.mkdir(parents=True)
        os.sync()  # what was removed is still work for the disk
    _barrier()


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
    from canonical_saver import disk

    fsync, start = os.fsync, disk._start_writeback
    os.fsync = lambda _: None
    disk._start_writeback = lambda *_: None
    try:
        yield
    finally:
        os.fsync, disk._start_writeback = fsync, start


@contextmanager
def _timed_phases() -> Iterator[dict[str, float]]:
    from canonical_saver.ranks import Ranks

    plain, found = Ranks.phase, dict[str, float]()

    @contextmanager
    def phase(ranks: Ranks, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        with plain(ranks, name):
            yield
        found[name] = found.get(name, 0.0) + time.perf_counter() - begun

    Ranks.phase = phase  # type: ignore[method-assign]
    try:
        yield found
    finally:
        Ranks.phase = plain  # type: ignore[method-assign]


def _barrier() -> None:
    if dist.is_initialized():
        dist.barrier()


def _gather(value: tuple[int, int]) -> list[tuple[int, int]]:
    if not dist.is_initialized():
        return [value]
    values: list[tuple[int, int]] = [(0, 0)] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def resident_memory() -> int:
    """Bytes of main memory of this process."""
    return _status("VmRSS:")


def reset_peak() -> None:
    """Let :func:`peak_memory` count from now on."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int:
    """The greatest amount of main memory since the last reset."""
    return _status("VmHWM:")


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def _written() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes:"))
