"""The command line of the bench; see ``--help``."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import cells, many, many_ranks, page, worlds
from benchmarks.compare import compare

DOCS = Path(__file__).parent.parent / "docs" / "results"
LIBRARIES = ("torch", "transformers", "accelerate", "deepspeed", "safetensors")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench.

    Returns:
        0 when all was measured as planned (targets that are missed are in the page), 1 when
        something planned was left out, or when the saver became slower between two runs.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="see that all works; no real numbers")
    parser.add_argument("--scale", action="store_true", help="compute large models on many ranks")
    parser.add_argument("--page", action="store_true", help="make page and plots from the JSON")
    parser.add_argument("--only", default="", help="cells whose names begin so, such as 'fsdp2, 2'")
    parser.add_argument("--minutes", type=float, default=28.5, help="for all cells together")
    parser.add_argument("--folder", type=Path, help="where to save; by default below here")
    parser.add_argument("--output", type=Path, default=DOCS, help="where page and plots go")
    parser.add_argument(
        "--compare",
        type=Path,
        nargs="+",
        metavar="RUN.json",
        help="an old run, and a new one (by default that in the output): what became slower",
    )
    asked = parser.parse_args(arguments)
    path = asked.output / "performance.json"
    if asked.compare is not None:
        if len(asked.compare) > 2:
            parser.error(f"--compare takes one or two runs, found {len(asked.compare)}")
        runs = [*asked.compare, path][:2]
        return _compare(*(json.loads(run.read_text()) for run in runs))
    asked.output.mkdir(parents=True, exist_ok=True)
    if asked.scale:
        from benchmarks.scale import main as scale

        return scale.run(asked.output)
    if not asked.page:
        planned = cells.QUICK if asked.quick else cells.FULL
        planned = tuple(cell for cell in planned if cell.name.startswith(asked.only))
        results = _measure(planned, asked.minutes, asked.folder, with_many=not asked.quick)
        path.write_text(json.dumps(results, indent=1) + "\n")
    results = json.loads(path.read_text())
    page.write(results, asked.output)
    for text in results["left_out"]:
        print(f"not as planned: {text}", file=sys.stderr)
    print(f"{asked.output}/performance.md: {len(results['samples'])} saves measured")
    return 1 if results["left_out"] else 0


def _measure(
    planned: Sequence[cells.Cell], minutes: float, where: Path | None, *, with_many: bool
) -> dict[str, Any]:
    begun = time.monotonic()
    samples: list[worlds.Sample] = []
    left_out: list[str] = []
    predicted: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    on_ranks: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=where or Path.cwd(), prefix=".bench-") as folder:
        if with_many:
            found = many.measure(Path(folder))
            on_ranks = many_ranks.measure(Path(folder))
        cells_begun = time.monotonic()
        # What large cells take is hard to foretell: they are last, and lose rounds.
        order = sorted(planned, key=_work)
        for number, cell in enumerate(order):
            left = minutes * 60 - (time.monotonic() - cells_begun)
            work = sum(_work(later) for later in order[number:])
            share = left * _work(cell) / work
            print(f"{cell.name}: at most {share:.0f} s", file=sys.stderr, flush=True)
            mine, failed = worlds.run_cell(cell, Path(folder) / "cell", share)
            shutil.rmtree(Path(folder) / "cell", ignore_errors=True)
            samples += mine
            if failed:
                left_out.append(f"{cell.name}: {failed}")
            if cell.ranks > 1 and cell.engine in ("fsdp2", "zero3"):
                from benchmarks.scale.simulate import imbalance_of

                predicted.append({"cell": cell.name, "imbalance": imbalance_of(cell)})
    place = {cell.name: number for number, cell in enumerate(planned)}
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": _machine(where or Path.cwd()),
        "minutes": (time.monotonic() - begun) / 60,
        "left_out": left_out,
        "predicted": sorted(predicted, key=lambda found: place[found["cell"]]),
        "many": found,
        "many_ranks": on_ranks,
        "samples": [asdict(s) for s in sorted(samples, key=lambda sample: place[sample.cell])],
    }


def _work(cell: cells.Cell) -> float:
    """How long a cell takes, about, in seconds: some to begin, then by bytes and turns."""
    from benchmarks.contestants import OURS
    from benchmarks.ready import LARGE
    from benchmarks.worlds import turns

    gigabytes = max(1, cell.ranks / (os.cpu_count() or 1)) * cell.size / cells.GB
    wait = 1.5 if cell.size >= LARGE else 0.0
    names = [name for number in range(cell.rounds) for name, _, _ in turns(cell, number)]
    ours = sum(name in OURS for name in names)
    peers = len(names) - ours
    return 8 + 8 * gigabytes + ours * (0.3 + wait + 1.3 * gigabytes) + peers * (0.5 + 6 * gigabytes)


def _machine(folder: Path) -> dict[str, Any]:
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    holding = [m for m in mounts if folder.resolve().is_relative_to(m[1])]
    return {
        "cores": os.cpu_count(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release().split("-")[0],
        "file_system": max(holding, key=lambda m: len(m[1]))[2],
        "versions": [f"{name} {version(name)}" for name in LIBRARIES],
    }


def _compare(old: dict[str, Any], new: dict[str, Any]) -> int:
    rows = compare(old, new)
    slower = sum(row.verdict == "slower" for row in rows)
    print("\n".join(map(str, rows)))
    print(f"{slower} of {len(rows)} rows became slower")
    return 1 if slower or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
