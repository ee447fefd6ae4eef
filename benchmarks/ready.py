"""Memory and disk as each save is to find them: idle, and no slower than memory is.

A virtual machine may give free memory back to its host. The first write to a page that was given
back takes about ten times as long, so a save that meets such pages measures the host. Hence each
contestant first saves unmeasured, and what that took of memory is freed just before the save that
counts: the kernel hands out first what was freed last, to those who ask for pieces of the same
sizes.
"""

from __future__ import annotations

import gc
import mmap
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.kernel import peak_memory, reset_peak, resident_memory
from benchmarks.ranks import barrier, rank

GIVEN_BACK = Path("/sys/module/page_reporting/parameters/reported_kib")
"""Where some kernels count what they gave back to the host."""

PERIOD, PASS = 2.3, 0.3
"""Seconds: free memory is given back in passes, two seconds apart, of pieces closer than that."""

LARGE = 5 * 10**8
"""Bytes from which on a save takes so long that it often meets a pass."""


def make_ready(save: Callable[[Path], None], folder: Path, size: int) -> None:
    """Have memory at hand as the next save will take it; collective.

    Large models wait for a pass, unless the unmeasured save took longer than the passes are apart:
    the next save may then meet one however it begins, and the wait would cost the bench its time.

    Args:
        save: saves into a folder, unmeasured.
        folder: where the next save goes to, new and empty afterwards; all beside it is removed.
        size: bytes of the model.
    """
    former = folder.with_name("unmeasured")
    if rank() == 0:
        shutil.rmtree(folder.parent, ignore_errors=True)
        former.mkdir(parents=True)
    barrier()
    before = resident_memory()
    reset_peak()
    begun = time.monotonic()
    save(former)
    seconds = time.monotonic() - begun
    held = mmap.mmap(-1, max(mmap.PAGESIZE, peak_memory() - before))
    held.madvise(mmap.MADV_HUGEPAGE)
    for start in range(0, len(held), mmap.PAGESIZE):
        held[start] = 1
    gc.collect()
    barrier()
    if rank() == 0:
        os.sync()
        folder.mkdir()
        if size >= LARGE and seconds < PERIOD:
            await_pass()
    barrier()
    if rank() == 0:
        drop(former)
    held.close()
    barrier()


def await_pass() -> None:
    """Return when memory was given back just now, or there is none to give; at once if unknown.

    After three periods the wait is over in any case.
    """
    if not GIVEN_BACK.exists():
        return
    given, changed, patience = GIVEN_BACK.read_text(), time.monotonic(), PERIOD
    deadline = changed + 3 * PERIOD
    while time.monotonic() < min(changed + patience, deadline):
        time.sleep(0.02)
        now = GIVEN_BACK.read_text()
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
