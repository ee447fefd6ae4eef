"""One measurement: seconds, memory and bytes of one save, as the kernel counts them."""

from __future__ import annotations

import gc
import mmap
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch.distributed as dist

from benchmarks.contestants import Contestant, rank
from benchmarks.engines import Trained


@dataclass(frozen=True)
class Cost:
    """What one save cost.

    Attributes:
        seconds: from the first rank's start to the last one's return.
        durable_seconds: the same and until everything is on the disk; None if that was not waited
            for.
        memory: for each rank, bytes by which its memory went over what it was before, at most.
        written: bytes that all ranks gave to the disk (``write_bytes``).
    """

    seconds: float
    durable_seconds: float | None
    memory: tuple[int, ...]
    written: int


def measure(contestant: Contestant, trained: Trained, folder: Path, *, durable: bool) -> Cost:
    """Save once into a new folder; collective.

    Args:
        contestant: the way to save.
        trained: the model.
        folder: where; what else lies beside it is removed.
        durable: whether the contestant flushes to disk where it does so of itself. If not, its
            ``fsync`` does nothing, and the flush is timed apart, after it.
    """
    gc.collect()
    _barrier()
    if rank() == 0:
        make_room(folder, trained.size)
    _barrier()
    before = resident_memory()
    reset_peak()
    written = _written()
    _barrier()
    begun = time.perf_counter()
    if durable:
        contestant(trained, folder)
        _barrier()
        seconds = durable_seconds = time.perf_counter() - begun
    else:
        with _without_flushing():
            contestant(trained, folder)
        _barrier()
        seconds = time.perf_counter() - begun
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
    )


def make_room(folder: Path, size: int) -> None:
    """Make a folder, and have as much main memory at hand as a save into it will take.

    A virtual machine gives free memory back to its host, and the first write to it afterwards is
    several times slower than the next: whoever meets such pages would pay for all. So what is
    given out next is written to and freed: once for the file and once for a copy of the model,
    which some make.
    """
    shutil.rmtree(folder.parent, ignore_errors=True)
    folder.mkdir(parents=True)
    block = bytes(2**23)
    with mmap.mmap(-1, 2 * size + len(block)) as room:
        room.madvise(mmap.MADV_HUGEPAGE)
        for start in range(0, 2 * size, len(block)):
            room[start : start + len(block)] = block


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
