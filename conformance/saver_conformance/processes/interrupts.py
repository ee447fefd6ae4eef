"""Ctrl-C, SIGTERM and SIGHUP: the first ends the run in order, the others change nothing.

Python raises KeyboardInterrupt between any two instructions, also where it cannot be told on (in a
destructor, in a callback), and in the middle of what must not be left half done. Both have a remedy
here: :func:`check` where a run waits, and :func:`held` around what belongs together.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What a person, a supervisor and a closed terminal send to end a run."""

_received = threading.Event()


def listen() -> None:
    """Raise KeyboardInterrupt for the first signal, in the main thread; ignore further ones.

    A signal that is ignored already (``nohup``) stays so.
    """
    _received.clear()
    sys.unraisablehook = _hide_lost
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _hide_lost(lost: sys.UnraisableHookArgs) -> None:
    """Print no traceback of an interrupt in a destructor or callback: :func:`check` raises it."""
    if not issubclass(lost.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(lost)


def ignore() -> None:
    """Ignore further signals; the interpreter takes away other handlers before it has ended."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def have_come() -> bool:
    """Whether a signal has come."""
    return _received.is_set()


def check() -> None:
    """Raise KeyboardInterrupt if a signal has come; for loops that wait.

    Raises:
        KeyboardInterrupt: one has, even if the exception that it raised got lost.
    """
    if _received.is_set():
        raise KeyboardInterrupt


@contextmanager
def held() -> Iterator[None]:
    """Put signals off until the block ends; only in the main thread, where they arrive."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if callable(handler):
            signal.signal(number, lambda *arrived: came.append(arrived))
    try:
        yield
    finally:
        for number, handler in before.items():
            if callable(handler):
                signal.signal(number, handler)
        for arrived, frame in came:
            handler = before[signal.Signals(arrived)]
            if callable(handler):
                handler(arrived, frame)


def _interrupt(number: int, frame: FrameType | None) -> None:
    if not _received.is_set():
        _received.set()
        raise KeyboardInterrupt
