"""What ranks print, passed on while they print it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

Listener = Callable[[int, str], None]
"""Called with the number of a rank and a line that it has printed."""

PAUSE = 0.1
"""Seconds between two looks at the logs."""


@contextmanager
def following(logs: Mapping[int, tuple[Path, int]], listen: Listener | None) -> Iterator[None]:
    """Pass on each line that is written to ``logs`` until the block ends, the last ones too.

    Args:
        logs: by rank the file that it prints to, and the position to begin at.
        listen: hears the lines; None hears nothing.
    """
    if listen is None:
        yield
        return
    over = threading.Event()
    thread = threading.Thread(target=_follow, args=(logs, listen, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _follow(logs: Mapping[int, tuple[Path, int]], listen: Listener, over: threading.Event) -> None:
    positions = {rank: begin for rank, (_, begin) in logs.items()}
    last = False
    while not last:
        last = over.wait(PAUSE)
        for rank, (path, _) in logs.items():
            with path.open("rb") as log:
                log.seek(positions[rank])
                text = log.read()
            whole = len(text) if last else text.rfind(b"\n") + 1
            positions[rank] += whole
            for line in text[:whole].decode(errors="replace").splitlines():
                listen(rank, line)
