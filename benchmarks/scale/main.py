"""The table of large models on many ranks."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.page import table
from benchmarks.scale import shapes
from benchmarks.scale.simulate import (
    HOLDERS,
    Distribution,
    buffers_of,
    distribute,
    lay_out,
    planned_ranges,
)

WORLDS = (8, 64, 512, 1024)
PLANNED_WORLD = 512
GB, MB = 10**9, 10**6

WRITER = 2 * GB
"""Bytes a second that one rank can write."""
STORAGE = 40 * GB
"""Bytes a second that the file system takes from all together."""
NETWORK = 12.5 * GB
"""Bytes a second that arrive at one rank, 100 Gbit/s."""
WORST = 1.2
"""The busiest rank should write no more than this times the mean."""


def run(output: Path) -> int:
    """Compute all, print it, and write ``scale.md``.

    Returns:
        0; a tiling that is not proven raises.
    """
    distributions: list[tuple[str, str, int, Distribution]] = []
    costs: list[tuple[str, str, dict[str, Any]]] = []
    for name in shapes.NAMES:
        model = shapes.build(name)
        files, buffers = lay_out(model), buffers_of(model)
        for engine, holder in HOLDERS.items():
            for world in WORLDS:
                found = distribute(files, buffers, holder, world)
                distributions.append((name, engine, world, found))
                print(*_row(distributions[-1]), sep="  ", flush=True)
            costs.append((name, engine, _one_rank(name, engine, files, buffers)))
            print(*_cost_row(costs[-1]), sep="  ", flush=True)
    page = "\n".join(_page(distributions, costs))
    (output / "scale.md").write_text(page)
    return 0


def _one_rank(name: str, engine: str, files: Any, buffers: frozenset[int]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ranges.pt"
        torch.save(planned_ranges(files, buffers, HOLDERS[engine], PLANNED_WORLD), path)
        command = [sys.executable, "-m", "benchmarks.scale.one_rank", name, engine]
        command += [str(PLANNED_WORLD // 4), str(PLANNED_WORLD), str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name}, {engine}: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _page(
    distributions: list[tuple[str, str, int, Distribution]],
    costs: list[tuple[str, str, dict[str, Any]]],
) -> list[str]:
    lines = ["# Large models, computed", "", "Made by `nox -s bench -- --scale`; do not edit.", ""]
    lines += [
        "Models on the meta device in bfloat16, divided as FSDP2 (rows) and ZeRO-3 (flat "
        "partitions) divide them. For each line the ranges of all ranks are proven to tile every "
        "file exactly. "
        f"Times assume that a rank writes {WRITER / GB:g} GB/s, that the file system takes "
        f"{STORAGE / GB:g} GB/s from all together, and that {NETWORK / GB:g} GB/s arrive at the "
        "rank that gathers, which then writes alone.",
        "",
    ]
    head = ("model", "engine", "ranks", "GB", "ranges", "worst rank / mean", "idle ranks")
    lines += table((*head, "save s", "gather and write s"), map(_row, distributions))
    uneven = [d for d in distributions if d[3].imbalance(d[2]) > WORST]
    if uneven:
        lines += [
            f"Where the worst rank writes more than {WORST} times the mean, FSDP2 has divided "
            "tensors with fewer rows than there are ranks, or hardly more: fused experts have one "
            "row an expert. Such ranks hold these bytes alone, so somebody else could only write "
            "them after a transfer. The table's time is bounded by the worst rank only where that "
            "rank takes longer than the file system needs for all.",
            "",
        ]
    lines += [f"## What planning costs one of {PLANNED_WORLD} ranks", ""]
    lines += [
        "In a process of its own: names, layout and write items, then the proof with the ranges of "
        "all ranks. Seconds are the processor's; memory is by the kernel's high-water mark, "
        "without the model's modules.",
        "",
    ]
    return [
        *lines,
        *table(("model", "engine", "plan s", "prove s", "memory MB"), map(_cost_row, costs)),
    ]


def _row(line: tuple[str, str, int, Distribution]) -> tuple[str, ...]:
    name, engine, world, found = line
    parallel = max(found.worst / WRITER, found.bytes / STORAGE)
    alone = found.bytes / NETWORK + found.bytes / WRITER
    return (
        name,
        engine,
        str(world),
        f"{found.bytes / GB:,.0f}",
        f"{found.ranges:,}",
        f"{found.imbalance(world):.2f}",
        str(found.empty),
        f"{parallel:,.1f}",
        f"{alone:,.0f}",
    )


def _cost_row(line: tuple[str, str, dict[str, Any]]) -> tuple[str, ...]:
    name, engine, cost = line
    return (
        name,
        engine,
        f"{cost['plan_seconds']:.1f}",
        f"{cost['prove_seconds']:.1f}",
        f"{cost['memory'] / MB:.0f}",
    )
