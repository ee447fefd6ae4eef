"""What a proof costs: `prove` against a plain parallel read of the same bytes, by turns.

``python -m benchmarks.proof --size 2 --ranks 2 --engine fsdp2`` saves a model, then reads it both
ways. A plain read is as many processes as there are ranks, each reading its share of the file in
pieces of 8 MiB and doing nothing else. The file is dropped from the kernel's cache before each;
``--cached`` leaves it there, where a plain read is a copy of memory and no disk hides a difference.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import start_processes

from benchmarks.kernel import peak_memory, reset_peak, resident_memory
from benchmarks.ranks import barrier, gather, rank, world_size

GB, MIB = 10**9, 2**20
PIECE = 8 * MIB
TIMES_A_READ = 1.3
"""How long a proof is meant to take at most, in times of a plain read."""
MOST_MEMORY = 64 * MIB


def plain_read(path: Path) -> None:
    """Read this rank's share of a file."""
    size = path.stat().st_size
    share = -(-size // world_size())
    start = rank() * share
    buffer = bytearray(PIECE)
    handle = os.open(path, os.O_RDONLY)
    try:
        while start < min((rank() + 1) * share, size):
            start += os.preadv(handle, [buffer], start)
    finally:
        os.close(handle)


def drop(path: Path) -> None:
    """Take a file out of the kernel's cache."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)


def measured(work: Callable[[], object], path: Path, *, cached: bool) -> tuple[float, int]:
    """Seconds until all ranks are done, and the most memory that one of them took besides."""
    if rank() == 0 and not cached:
        drop(path)
    before = resident_memory()
    reset_peak()
    barrier()
    begun = time.perf_counter()
    work()
    barrier()
    seconds = time.perf_counter() - begun
    return seconds, max(gather(max(0, peak_memory() - before)))


def _rank_main(
    number: int, ranks: int, engine: str, size: int, rounds: int, folder: str, cached: bool
) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(ranks)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "DS_ACCELERATOR": "cpu"}
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=number, world_size=ranks
    )
    from benchmarks.engines import build
    from benchmarks.models import config
    from canonical_saver import prove, save_model

    trained = build(engine, config(size))
    model = Path(folder) / "model"
    save_model(trained.wrapped, model)
    assert prove(trained.wrapped, model).ok
    path = model / "model.safetensors"
    found: dict[str, list[tuple[float, int]]] = {"read": [], "prove": []}
    for _ in range(rounds):
        found["read"].append(measured(lambda: plain_read(path), path, cached=cached))
        found["prove"].append(measured(lambda: prove(trained.wrapped, model), path, cached=cached))
    if number == 0:
        seconds = {name: median(s for s, _ in samples) for name, samples in found.items()}
        result = {
            "engine": engine,
            "ranks": ranks,
            "cached": cached,
            "bytes": path.stat().st_size,
            "read_seconds": round(seconds["read"], 3),
            "prove_seconds": round(seconds["prove"], 3),
            "times_a_read": round(seconds["prove"] / seconds["read"], 2),
            "memory_mib": round(max(memory for _, memory in found["prove"]) / MIB, 1),
        }
        print(json.dumps(result))
    dist.destroy_process_group()


def main() -> None:
    """Measure one engine and print the result as JSON."""
    parser = argparse.ArgumentParser(prog="benchmarks.proof", description=__doc__)
    parser.add_argument("--engine", default="fsdp2")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--size", type=float, default=2.0, help="gigabytes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cached", action="store_true")
    parser.add_argument("--where", type=Path, default=Path.cwd())
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.where, prefix=".bench-") as folder:
        arguments = (
            asked.ranks,
            asked.engine,
            int(asked.size * GB),
            asked.rounds,
            folder,
            asked.cached,
        )
        start_processes(  # type: ignore[no-untyped-call]
            _rank_main, arguments, asked.ranks, start_method="spawn"
        )


if __name__ == "__main__":
    main()
