"""Has DeepSpeed's operators compiled before ranks wait for them, in a process of its own.

The suite loads no framework; the process does, says what it waits for, and does not outlive it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from saver_conformance.errors import HarnessFailedError
from saver_conformance.processes import interrupts
from saver_conformance.processes.time_limit import PERIOD

LOG_TAIL = 4000
"""Characters of the compiler's output that go with a failure."""


def run_operators(module: str, note: Callable[[str], None], scratch: Path, *, cpu: bool) -> None:
    """Run ``module`` as a program that compiles what is missing, for as long as that takes.

    Args:
        module: prints a line for each thing that it waits for.
        note: is given these lines.
        scratch: folder for the log and for the compiler's temporary files.
        cpu: whether the ranks do without accelerators.

    Raises:
        HarnessFailedError: it failed.
    """
    environment = {**os.environ, "TMPDIR": str(scratch)}
    if cpu:
        environment |= {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
    log = scratch / "operators.log"
    with log.open("wb") as errors:
        with interrupts.held():
            process = subprocess.Popen(
                [sys.executable, "-m", module],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                start_new_session=True,  # a group with the compilers that it starts
            )
        try:
            _read_notes(process, note)
        finally:
            with interrupts.held():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                code = process.wait()
    if code:
        said = log.read_text(errors="replace")[-LOG_TAIL:].strip()
        raise HarnessFailedError(
            f"DeepSpeed's operators could not be compiled (exit code {code}):\n{said}"
        )


def _read_notes(process: subprocess.Popen[bytes], note: Callable[[str], None]) -> None:
    """Pass on each line until the process ends."""
    output = process.stdout
    assert output is not None
    os.set_blocking(output.fileno(), False)
    begun = b""
    while True:
        interrupts.check()
        if not select.select([output], [], [], PERIOD)[0]:
            continue
        chunk = os.read(output.fileno(), 1 << 16)
        if not chunk:
            process.wait()
            return
        *lines, begun = (begun + chunk).split(b"\n")
        for line in lines:
            note(line.decode(errors="replace"))
