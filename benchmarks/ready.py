"""Memory and disk as each save is to find them: idle, and no slower than memory is.

A virtual machine may give free memory back to its host. The first write to a page that was given
back takes about ten times as long, so a save that meets such pages measures the host. Hence each
contestant first saves unmeasured, and what that took of memory, and some to spare, is freed just
before the save that counts: the kernel hands out first what was freed last, to those who ask for
pieces of the same sizes.
"""

from __future__ import annotations

import gc
import mmap
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.kernel import peak_memory, reset_peak, resident_memory
from benchmarks.ranks import barrier, rank, world_size

GIVEN_BACK = Path("/sys/module/page_reporting/parameters/reported_kib")
"""Where some kernels count what they gave back to the host."""

PERIOD, PASS = 2.3, 0.3
"""Seconds: free memory is given back in passes, two seconds apart, of pieces closer than that."""

LARGE = 5 * 10**8
"""Bytes from which on a save takes so long that it often meets a pass."""

SPARE = 5 * 10**8
"""Bytes freed beyond what the unmeasured save took, at most half of the model's.

Two saves of the same model split the free memory differently: without some to spare, a third of a
gigabyte was missing at times.
"""


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
    before = resident_memory()
    reset_peak()
    save(former)
    taken = hold(max(0, peak_memory() - before), huge=False)
    spare = hold(min(size // 2, SPARE) // world_size(), huge=True)
    gc.collect()
    barrier()
    if rank() == 0:
        os.sync()
        folder.mkdir()
        if size >= LARGE:
            await_pass(given, freed)
    barrier()
    if rank() == 0:
        drop(former)
    taken.close()
    spare.close()
    barrier()


def hold(size: int, *, huge: bool) -> mmap.mmap:
    """Take memory until it is closed: in huge pages, as files have it, or in small ones, as heaps.

    Small ones cost more to take, but they are those that a heap has just given up.
    """
    held = mmap.mmap(-1, max(mmap.PAGESIZE, size))
    held.madvise(mmap.MADV_HUGEPAGE if huge else mmap.MADV_NOHUGEPAGE)
    torch.frombuffer(held, dtype=torch.uint8)[:: mmap.PAGESIZE] = 1
    return held


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


def drop(folder: Path) -> None:
    """Free the memory in which the kernel holds files that are on the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(handle)
