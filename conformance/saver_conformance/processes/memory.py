"""How much memory processes take while they save, read from outside of them.

Pages of files are left out, which the kernel can take back: a saver may map what it wrote to look
at it. Short peaks can be missed, so that what is told is what was taken at least.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Self

PERIOD = 0.002
"""Seconds between two looks."""


class MemoryWatch:
    """Looks again and again while the context lasts, a last time at its end."""

    def __init__(self, pids: Sequence[int]) -> None:
        """Watch the processes ``pids``; none is fine."""
        self._pids = pids
        self._before: list[int] = []
        self._peaks: list[int] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        if self._pids:
            self._before = [read_memory(pid) for pid in self._pids]
            self._peaks = list(self._before)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._pids:
            self._over.set()
            self._thread.join()
            self._look()

    @property
    def growth(self) -> tuple[int, ...] | None:
        """Bytes by which the memory of each process grew at most; None where none was watched."""
        if not self._pids:
            return None
        return tuple(peak - before for peak, before in zip(self._peaks, self._before, strict=True))

    def _watch(self) -> None:
        while not self._over.wait(PERIOD):
            self._look()

    def _look(self) -> None:
        for place, pid in enumerate(self._pids):
            self._peaks[place] = max(self._peaks[place], read_memory(pid))


def read_memory(pid: int) -> int:
    """Bytes of the memory of a process that belong to no file; 0 where it has ended."""
    try:
        _, resident, shared = Path(f"/proc/{pid}/statm").read_text().split()[:3]
    except (OSError, ValueError):
        return 0
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")
