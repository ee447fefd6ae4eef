"""Models of many small tensors: what a tensor costs, whatever its size.

Each model is saved in a process of its own, on one rank, without a flush to disk.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

COUNTS = (25_000, 50_000, 100_000)
LAYERS = (15, 29, 58)
EXPERTS = 256


def measure(folder: Path) -> list[dict[str, Any]]:
    """Plan and save models of ever more tensors.

    Returns:
        For each its kind, how many tensors its file has, seconds to plan, seconds to save, and
        bytes of extra memory.
    """
    found = []
    for kind, sizes in (("plain", COUNTS), ("fused experts", LAYERS)):
        for size in sizes:
            command = [sys.executable, "-m", "benchmarks.many", kind, str(size), str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"{kind}, {size}: {done.stderr[-2000:]}")
            found.append(json.loads(done.stdout.splitlines()[-1]))
    return found


def plain(count: int) -> nn.Module:
    """A model of ``count`` tensors of 64 elements."""
    model = nn.Module()
    for number in range(count // 100):
        part = nn.Module()
        model.add_module(f"part{number}", part)
        for name in range(100):
            part.register_parameter(f"weight{name}", nn.Parameter(torch.zeros(64)))
    return model


def fused(layers: int) -> nn.Module:
    """A mixture of 256 tiny experts a layer, fused in memory, three tensors each in the file."""
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    config = Qwen3MoeConfig(
        vocab_size=64,
        hidden_size=8,
        intermediate_size=8,
        moe_intermediate_size=4,
        num_hidden_layers=layers,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=8,
        num_experts=EXPERTS,
        num_experts_per_tok=2,
    )
    model: nn.Module = Qwen3MoeForCausalLM(config)
    return model


def _main(kind: str, size: int, folder: Path) -> None:
    from canonical_saver import save_model
    from canonical_saver.planned_files import plan

    os.fsync = lambda fd: None
    torch.set_num_threads(1)
    small: nn.Module = plain(100) if kind == "plain" else fused(1)
    save_model(small, folder / "many-first")
    model = plain(size) if kind == "plain" else fused(size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    files = plan(model)
    planned = time.perf_counter()
    report = save_model(model, folder / "many")
    ended = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    header = json.loads(_header(folder / "many" / files[0].name))
    found = {
        "kind": kind,
        "tensors": len(header) - 1,
        "bytes": report.bytes,
        "plan_seconds": planned - begun,
        "save_seconds": ended - planned,
        "memory": (peak - before) * 1024,
    }
    print(json.dumps(found))


def _header(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(int.from_bytes(stream.read(8), "little"))


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
