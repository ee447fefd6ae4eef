"""Memory and disk as each save is to find them: idle, and no slower than memory is.

A virtual machine may give free memory back to its host. The first write to a page that was given
back takes about ten times as long, so a save that meets such pages measures the host. Hence each
contestant first saves unmeasured, and what that took of memory is freed just before the save that
counts: the kernel hands out first what was freed last, to those who ask for pieces of the same
sizes on the same core. So each rank is kept on a core, and frees as much as it is to need.
"""

from __future__ import annotations

import gc
import mmap
import os
import shutil
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import torch

from benchmarks.kernel import peak_memory, reset_peak, resident_memory, written
from benchmarks.ranks import barrier, gather, rank

GIVEN_BACK = Path("/sys/module/page_reporting/parameters/reported_kib")
"""Where some kernels count what they gave back to the host."""

PERIOD, PASS = 2.3, 0.3
"""Seconds: free memory is given back in passes, two seconds apart, of pieces closer than that."""

FOLIO = 2**21
"""Bytes: the kernel frees its pieces of a file as a whole, and none is larger."""

LARGE = 5 * 10**8
"""Bytes from which on a save takes so long that it often meets a pass."""


def make_ready(save: Callable[[Path], None], folder: Path, size: int) -> None:
    """Have memory at hand as the next save will take it; collective.

    Args:
        save: saves into a folder, unmeasured.
        folder: where the next save goes to, new and empty afterwards; all beside it is removed.
        size: bytes of the model; large ones wait for a pass, so that the next one is far.
    """
    former = folder.with_name("unmeasured")
    if rank() == 0:
        shutil.rmtree(folder.parent, ignore_errors=True)
        former.mkdir(parents=True)
    given, freed = given_back(), time.monotonic()
    barrier()
    memory, bytes_before = resident_memory(), written()
    reset_peak()
    save(former)
    taken = hold(max(0, peak_memory() - memory))
    gc.collect()
    wrote = gather(written() - bytes_before)
    if rank() == 0:
        os.sync()
        folder.mkdir()
        if size >= LARGE:
            await_pass(given, freed)
    barrier()
    drop(former, *share(wrote, rank()))
    taken.close()
    barrier()


def hold(size: int) -> mmap.mmap:
    """Take memory until it is closed, in small pages as a heap does."""
    held = mmap.mmap(-1, max(mmap.PAGESIZE, size))
    held.madvise(mmap.MADV_NOHUGEPAGE)
    torch.frombuffer(held, dtype=torch.uint8)[:: mmap.PAGESIZE] = 1
    return held


def bind(rank: int) -> None:
    """Keep this thread on a core of its own; with more ranks than cores, they share them."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[rank % len(cores)]})


def given_back() -> str:
    """What the kernel gave back to the host so far, "" where it does not say."""
    return GIVEN_BACK.read_text() if GIVEN_BACK.exists() else ""


def await_pass(given: str, freed: float) -> None:
    """Return when a pass is over, or none comes; at once where the kernel does not tell.

    A pass comes within a period after memory was freed or another pass; otherwise there is nothing
    to give. After three periods the wait is over in any case.

    Args:
        given: what :func:`given_back` said when memory was freed.
        freed: when that was, by the monotonic clock.
    """
    if not given:
        return
    begun = time.monotonic()
    changed, patience = freed, PERIOD
    now = given_back()
    if now != given:
        # A pass, nobody knows when.
        given, changed = now, begun
    while time.monotonic() < min(changed + patience, begun + 3 * PERIOD):
        time.sleep(0.02)
        now = given_back()
        if now != given:
            given, changed, patience = now, time.monotonic(), PASS


def share(wrote: Sequence[int], rank: int) -> tuple[Fraction, Fraction]:
    """Where the part of a rank begins and ends, if each has as much as it wrote of the whole.

    Args:
        wrote: bytes that each rank wrote; where the kernel counted none, rank 0 has the whole.
        rank: whose part.
    """
    counts = wrote if any(wrote) else [1]
    begin, end = (Fraction(sum(counts[:number]), sum(counts)) for number in (rank, rank + 1))
    return begin, end


def drop(folder: Path, begin: Fraction, end: Fraction) -> None:
    """Free a part of the memory in which the kernel holds files that are on the disk.

    Args:
        folder: where they are.
        begin: where the part of each file begins, 0 for the whole.
        end: where it ends, 1 for the whole.
    """
    for path in folder.rglob("*"):
        if path.is_file():
            size = path.stat().st_size
            first, last = (
                size if part == 1 else int(size * part) // FOLIO * FOLIO for part in (begin, end)
            )
            handle = os.open(path, os.O_RDONLY)
            try:
                if first < last:
                    os.posix_fadvise(handle, first, last - first, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(handle)
