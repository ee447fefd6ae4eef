"""How a save is measured, and in what a rank measures it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from benchmarks.cells import Cell
from benchmarks.measure import measure
from benchmarks.worlds import turns
from torch import nn

from canonical_saver import file_io, save_model

RANK = """
import json, os, sys
from pathlib import Path
from benchmarks import worlds
from benchmarks.cells import Cell
from benchmarks.measure import Cost

def measured(*_, **__):
    print(json.dumps(sorted(os.sched_getaffinity(0))), flush=True)
    return Cost(1.0, 1.0, (0,), 0, {})

worlds.measure = measured
shared = Path(sys.argv[2])
worlds._rank_main(Cell(**json.loads(sys.argv[1])), 0, shared, shared, 60.0)
"""


@pytest.mark.parametrize("durable", [True, False])
def test_the_save_before_flushes_as_the_one_that_counts(durable: bool, tmp_path: Path) -> None:
    real = (os.fsync, file_io._start_writeback)
    seen = []

    def save(_: Any, folder: Path) -> None:
        seen.append([now is then for now, then in zip(_flushing(), real, strict=True)])
        (folder / "model").write_bytes(b"1")

    trained: Any = SimpleNamespace(size=1)
    measure(save, trained, tmp_path / "way" / "measured", durable=durable)
    assert seen == [[durable, durable]] * 2
    assert _flushing() == real


def test_a_save_by_one_process_is_measured_by_its_phases(tmp_path: Path) -> None:
    trained: Any = SimpleNamespace(size=64)
    cost = measure(
        lambda _, folder: save_model(nn.Linear(4, 4), folder), trained, tmp_path, durable=False
    )
    assert cost.phases.keys() >= {"plan", "write", "publish"}


def _flushing() -> tuple[Any, Any]:
    return os.fsync, file_io._start_writeback


def test_a_rank_saves_on_one_core_and_its_first_save_is_discarded(tmp_path: Path) -> None:
    cell = Cell("single", 1, 8 * 10**6, 2, 1, explained=True)
    done = subprocess.run(
        [sys.executable, "-c", RANK, json.dumps(asdict(cell)), str(tmp_path)],
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
        cwd=Path(__file__).parents[2],
    )
    cores = [json.loads(line) for line in done.stdout.splitlines()]
    samples = (tmp_path / "samples.jsonl").read_text().splitlines()
    assert cores == [sorted(os.sched_getaffinity(0))[:1]] * len(cores)
    assert len(samples) == sum(len(turns(cell, number)) for number in range(cell.rounds))
    assert len(cores) == len(samples) + 1
