"""Runs the cells, each in new processes of its own, all contestants by turns: A B C, A B C, ..."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from benchmarks import engines, models
from benchmarks.cells import Cell
from benchmarks.contestants import COPIES, OURS, PEERS, Contestant
from benchmarks.measure import measure
from benchmarks.ranks import barrier, rank_0_says
from benchmarks.ready import bind

LONGEST = timedelta(minutes=8)


@dataclass(frozen=True)
class Sample:
    """One save of one contestant.

    Attributes:
        cell: the cell's name.
        contestant: who saved.
        round: in which round of the cell, from 0.
        durable: whether the contestant's own flushing was on, see :func:`measure`.
        bytes: of the model.
        seconds, durable_seconds, memory, written, phases: see
            :class:`benchmarks.measure.Cost`.
    """

    cell: str
    contestant: str
    round: int
    durable: bool
    bytes: int
    seconds: float
    durable_seconds: float
    memory: tuple[int, ...]
    written: int
    phases: dict[str, float]


def run_cell(cell: Cell, folder: Path, seconds: float) -> tuple[list[Sample], str]:
    """Measure one cell.

    Args:
        cell: what to measure.
        folder: where to save to.
        seconds: no new round is begun after them.

    Returns:
        The samples, and what kept the cell from being measured as planned, "" if nothing did.
    """
    with tempfile.TemporaryDirectory() as shared:
        processes = [
            subprocess.Popen(
                [
                    *(sys.executable, "-m", "benchmarks.worlds", json.dumps(asdict(cell))),
                    *(str(rank), shared, str(folder), str(seconds)),
                ],
                stdout=subprocess.DEVNULL,
                stderr=(Path(shared) / f"{rank}.log").open("w"),
            )
            for rank in range(cell.ranks)
        ]
        deadline = time.monotonic() + seconds + 180
        failed = ""
        for rank, process in enumerate(processes):
            try:
                code = process.wait(max(1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                code = -1
            if code and not failed:
                log = (Path(shared) / f"{rank}.log").read_text().strip().splitlines()
                failed = f"rank {rank} ended with {code}: {' / '.join(log[-3:])}"
                for other in processes:
                    other.kill()
        results = Path(shared) / "samples.jsonl"
        lines = results.read_text().splitlines() if results.exists() else []
    samples = [Sample(**json.loads(line)) for line in lines]
    rounds = 1 + max((sample.round for sample in samples), default=-1)
    if not failed and rounds < cell.rounds:
        failed = f"{rounds} of {cell.rounds} rounds: the time was over"
    return samples, failed


def turns(cell: Cell, number: int) -> list[tuple[str, Contestant, bool]]:
    """Who saves in a round, by turns, and whether durably; each round begins with the next.

    Whoever came first in all rounds would always meet what the last one left of memory and disk.
    """
    left_out = set() if cell.explained else {"one_file"}
    left_out |= set() if cell.engine in COPIES else {"unchecked"}
    ours = {name: save for name, save in OURS.items() if name not in left_out}
    found = [(name, save, durable) for durable in (True, False) for name, save in ours.items()]
    if number < cell.peers:
        found += [(name, save, False) for name, save in PEERS[cell.engine].items()]
    first = number % len(found)
    return found[first:] + found[:first]


def _rank_main(cell: Cell, rank: int, shared: Path, folder: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(cell.ranks)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "HF_HUB_OFFLINE": "1"}
    os.environ |= {"LOCAL_WORLD_SIZE": str(cell.ranks), "DS_ACCELERATOR": "cpu"}
    torch.set_num_threads(1)
    if cell.engine != "single":
        dist.init_process_group(
            "gloo",
            init_method=f"file://{shared}/store",
            rank=rank,
            world_size=cell.ranks,
            timeout=LONGEST,
        )
    trained = engines.build(cell.engine, models.config(cell.size))
    gc.collect()
    gc.freeze()
    bind(rank)
    # Discarded: it meets blocks of the disk that were not in use before, which take longer.
    name, save, durable = turns(cell, 0)[0]
    measure(save, trained, folder / name, durable=durable)
    with (shared / "samples.jsonl").open("a") as results:
        for number in range(cell.rounds):
            if not rank_0_says(time.monotonic() < deadline):
                break
            for name, save, durable in turns(cell, number):
                cost = measure(save, trained, folder / name, durable=durable)
                if rank == 0:
                    sample = Sample(cell.name, name, number, durable, trained.size, **asdict(cost))
                    print(json.dumps(asdict(sample)), file=results, flush=True)
    barrier()
    # What engines leave running must not keep the process.
    os._exit(0)


if __name__ == "__main__":
    _rank_main(
        Cell(**json.loads(sys.argv[1])),
        int(sys.argv[2]),
        Path(sys.argv[3]),
        Path(sys.argv[4]),
        float(sys.argv[5]),
    )
