"""How far a save has come: told to a callback, or shown as a bar."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far a rank has come with the part of the weights that it writes.

    Attributes:
        bytes: bytes written.
        total_bytes: bytes to be written.
        files: weight files to which nothing more is to be written.
        total_files: weight files to be written to.
    """

    bytes: int
    total_bytes: int
    files: int
    total_files: int


ProgressCallback = Callable[[Progress], None]


class Meter:
    """Counts what a rank writes.

    Args:
        on_progress: called after each piece, until it raises: no bar is worth the weights.
    """

    def __init__(self, on_progress: ProgressCallback) -> None:
        self._on_progress = on_progress
        self._expected: Counter[int] = Counter()
        self._written: Counter[int] = Counter()

    def expect(self, file: int, count: int) -> None:
        """Learn that so many bytes are to be written to a file."""
        self._expected[file] += count

    def wrote(self, file: int, count: int) -> None:
        """Learn that so many bytes have been written to a file."""
        self._written[file] += count
        whole = sum(self._written[number] == size for number, size in self._expected.items())
        now = Progress(self._written.total(), self._expected.total(), whole, len(self._expected))
        try:
            self._on_progress(now)
        except Exception as error:
            log = logging.getLogger("canonical_saver")
            log.warning("the progress function is not called again, it raised %r", error)
            self._on_progress = _tell_nobody


def _tell_nobody(now: Progress) -> None:
    """What is told when nobody wants to know."""


@contextmanager
def progress_callback(progress: ProgressCallback | bool) -> Iterator[ProgressCallback]:
    """Choose who is told of the progress: a callback, or else a bar."""
    if callable(progress):
        yield progress
        return
    from canonical_saver.progress_bar import Bar

    with closing(Bar()) as bar:
        yield bar.show
