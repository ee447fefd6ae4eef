"""Where the time of a run goes, by engine and step."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

STEPS = (
    "start",
    "train",
    "crash",
    "save",
    "compare",
    "go on",
    "checkpoints",
    "end",
    "read",
    "reload",
    "serve",
    "check",
)
"""In order: start of the ranks with all imports, training, saves with injected faults, the save
that is judged, comparison of the process with what it was, an unsaved control, trainings with
checkpoints, reset of the ranks, reading what the saver was given, reload in another process, what
readers make of it, checks."""


class Stopwatch:
    """Adds up seconds; steps of different cases overlap. Safe from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds: defaultdict[tuple[str, str], float] = defaultdict(float)

    @contextmanager
    def time(self, engine: str, step: str) -> Iterator[None]:
        """Count the wall-clock time of the block as ``step``'s."""
        began = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self._seconds[engine, step] += time.monotonic() - began

    def seconds(self, engine: str) -> Mapping[str, float]:
        """Seconds of each step that an engine's cases took any, in the order of ``STEPS``."""
        return {
            step: self._seconds[engine, step] for step in STEPS if (engine, step) in self._seconds
        }
