"""Signals that end a run: the first counts, wherever it arrives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from saver_conformance.processes import interrupts


@pytest.fixture(autouse=True)
def own_handlers():  # type: ignore[no-untyped-def]
    before = {number: signal.getsignal(number) for number in interrupts.SIGNALS}
    hook = sys.unraisablehook
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    sys.unraisablehook = hook
    interrupts._received.clear()


@pytest.mark.parametrize("number", interrupts.SIGNALS)
def test_listen_raises_for_the_first_signal_alone(number: signal.Signals) -> None:
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)
    interrupts.listen()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)
    for other in interrupts.SIGNALS[:2]:
        os.kill(os.getpid(), other)


def test_listen_leaves_an_ignored_signal_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    interrupts.listen()
    os.kill(os.getpid(), signal.SIGHUP)
    interrupts.check()


def test_check_finds_an_interrupt_that_python_swallowed() -> None:
    code = (
        "import os, signal\n"
        "from saver_conformance.processes import interrupts\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "interrupts.listen()\n"
        "class Dies:\n"
        "    def __del__(self): os.kill(os.getpid(), signal.SIGINT)\n"
        "Dies()\n"
        "try: interrupts.check()\n"
        "except KeyboardInterrupt: print('found')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "found\n"


def test_listen_hides_the_traceback_of_an_interrupt_that_python_swallowed(
    capfd: pytest.CaptureFixture[str],
) -> None:
    class Interrupted:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    class Broken:
        def __del__(self) -> None:
            raise ValueError("told")

    interrupts.listen()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "unraisablehook", interrupts._hide_lost)
        Interrupted()
        Broken()
    printed = capfd.readouterr().err
    assert "KeyboardInterrupt" not in printed
    assert "told" in printed
    assert interrupts.have_come()


def test_held_puts_an_interrupt_off() -> None:
    steps: list[str] = []

    def interrupted_inside() -> None:
        with interrupts.held():
            os.kill(os.getpid(), signal.SIGINT)
            steps.append("inside")

    with pytest.raises(KeyboardInterrupt):
        interrupted_inside()
    assert steps == ["inside"]
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_held_is_transparent_without_a_signal() -> None:
    before = signal.getsignal(signal.SIGINT)
    with interrupts.held(), interrupts.held():
        pass
    assert signal.getsignal(signal.SIGINT) is before
