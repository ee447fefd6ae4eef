"""Time limits that a busy machine extends, so that nobody is accused of another's load.

While more processes want to run than there are cores, or wait for a disk, time counts for less. A
process that hangs wants neither, so on a machine of its own a limit is what its number says.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

LONGEST = 10
"""Times a limit that it takes at most, however busy the machine is."""
PERIOD = 0.2
"""Seconds between two looks at the machine, and at most those between two of a waiting loop."""

_STAT = Path("/proc/stat")
_WAITING = re.compile(r"^procs_(running|blocked) (\d+)$", re.MULTILINE)


class TimeLimit:
    """Counts down from when it is made; ``left`` is to be asked again every ``PERIOD``."""

    def __init__(self, seconds: float) -> None:
        """Allow ``seconds`` on a machine that has nothing else to do."""
        self._left = seconds
        self._seen = time.monotonic()
        self._end = self._seen + LONGEST * seconds

    def left(self) -> float:
        """Seconds that are left; 0 or less when it is over."""
        now = time.monotonic()
        if now - self._seen >= PERIOD:
            self._left -= (now - self._seen) / read_load()
            self._seen = now
        return min(self._left - (now - self._seen), self._end - now)

    def shorten(self, seconds: float) -> bool:
        """Allow at most ``seconds`` from now on; False when that is no less than is left."""
        if self.left() <= seconds:
            return False
        self._left, self._seen = seconds, time.monotonic()
        self._end = self._seen + LONGEST * seconds
        return True


def read_load() -> float:
    """How many times as long as alone something takes now, 1 at least: a coarse measure."""
    try:
        found = {name: int(count) for name, count in _WAITING.findall(_STAT.read_text())}
    except OSError:
        return 1.0
    return max(1.0, found.get("running", 0) / (os.cpu_count() or 1)) + found.get("blocked", 0)
