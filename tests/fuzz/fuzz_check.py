"""Fuzz the audit of folders, and comparisons with them, with atheris.

The arguments are those of libFuzzer.

``python tests/fuzz/fuzz_check.py -runs=1000000`` stops at the first input that raises, takes more
than thirty seconds, or takes more memory than two gigabytes.
"""

import json
import os
import resource
import shutil
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["saver_conformance"]):
    from tests.fuzz import hostile_comparison, hostile_folder

LIMITS = ("-timeout=30", "-rss_limit_mb=2048", "-max_len=2000")
MEMORY = Path("/dev/shm")
"""Files are made anew for each input; in memory that takes half the time."""


def main() -> int:
    """Run libFuzzer in a process of its own, which it ends without a chance to clean up."""
    where = MEMORY if os.access(MEMORY, os.W_OK) else None
    scratch = Path(tempfile.mkdtemp(prefix="fuzz-check-", dir=where))
    try:
        child = os.fork()
        if child == 0:
            _fuzz(scratch)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _fuzz(scratch: Path) -> None:
    folder, seeds, other = scratch / "folder", scratch / "seeds", scratch / "other"
    hostile_folder.save_well(folder)
    hostile_folder.save_well(other)
    well = {path.name: path.read_bytes() for path in folder.iterdir()}
    seeds.mkdir()
    _write_seeds(seeds, well)
    counts = {"inputs": 0, "clean": 0, "same": 0}

    def test_one(data: bytes) -> None:
        touched = hostile_folder.spoil(folder, data)
        counts["inputs"] += 1
        counts["clean"] += hostile_folder.judge(folder, read_bytes=len(data) % 8 == 0)
        if len(data) % 4 == 1:
            counts["same"] += hostile_comparison.compare(folder, other)
        hostile_folder.restore(folder, well, touched)
        if counts["inputs"] % 10_000 == 0:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            print(json.dumps({**counts, "peak_mib": peak}), flush=True)

    atheris.Setup([sys.argv[0], *LIMITS, *sys.argv[1:], str(seeds)], test_one)
    atheris.Fuzz()


def _write_seeds(folder: Path, well: dict[str, bytes]) -> None:
    shard, index = well[hostile_folder.SHARDS[0]], well["model.safetensors.index.json"]
    seeds = [
        b"\0" + shard,
        b"\1" + shard[8:-10],
        b"\2" + bytes(range(0, 250, 7)),
        b"\3" + index,
        *(bytes([4, place]) + b'{"a": [1, 2.5, null]}' for place in range(5, 10)),
        b"\4\0" + shard,
        b"\5" + bytes(range(24)),
    ]
    for number, seed in enumerate(seeds):
        (folder / str(number)).write_bytes(seed)


if __name__ == "__main__":
    sys.exit(main())
