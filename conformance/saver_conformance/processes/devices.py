"""The accelerators of this machine."""

from __future__ import annotations

from pathlib import Path


def count_accelerators() -> int:
    """The number of NVIDIA devices, without loading a framework into the suite's process."""
    return len(list(Path("/dev").glob("nvidia[0-9]*")))
