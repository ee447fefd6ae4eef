"""In which order cells are measured, and in which they are told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.worlds import Sample

from benchmarks import __main__ as bench
from benchmarks import cells, worlds


def test_large_cells_are_measured_last_and_told_as_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[cells.Cell] = []

    def run_cell(cell: cells.Cell, *_: object) -> tuple[list[Sample], str]:
        ran.append(cell)
        return [Sample(cell.name, "reference", 0, True, cell.size, 1.0, 1.0, (0,), 0, {})], ""

    monkeypatch.setattr(worlds, "run_cell", run_cell)
    monkeypatch.setattr(bench.page, "write", lambda *_: None)
    planned = tuple(cells.Cell("ddp", 2, size * cells.GB, 1, 1) for size in (2, 1, 4))
    monkeypatch.setattr(cells, "QUICK", planned)
    assert bench.main(["--quick", "--output", str(tmp_path), "--folder", str(tmp_path)]) == 0
    assert [cell.size // cells.GB for cell in ran] == [1, 2, 4]
    found = json.loads((tmp_path / "performance.json").read_text())["samples"]
    assert [sample["cell"] for sample in found] == [cell.name for cell in planned]
