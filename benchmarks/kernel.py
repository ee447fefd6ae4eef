"""What the kernel counts for this process: memory, and bytes given to the disk."""

from __future__ import annotations

from pathlib import Path


def resident_memory() -> int:
    """Bytes of main memory of this process."""
    return _status("VmRSS:")


def reset_peak() -> None:
    """Let :func:`peak_memory` count from now on."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int:
    """The greatest amount of main memory since the last reset."""
    return _status("VmHWM:")


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def written() -> int:
    """Bytes given to the disk so far (``write_bytes``)."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes:"))
