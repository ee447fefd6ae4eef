"""A tiny FSDP2 model on many ranks: what agreeing costs, beside ``dcp.save`` of the same model.

The ranks are forks of one process with a gloo group. On a machine with fewer cores than ranks they
take turns, so that every message and every wakeup counts; the bytes written hardly do.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

COUNTS = (8, 16, 32, 64, 128)
"""Ranks."""

ROUNDS = 5
"""Saves of each that count; one of each before them does not."""

LAYERS = 8

REFERENCE, PEER = "reference", "dcp.save"


def measure(
    folder: Path, counts: tuple[int, ...] = COUNTS, rounds: int = ROUNDS, layers: int = LAYERS
) -> list[dict[str, Any]]:
    """Save on ever more ranks.

    Args:
        folder: where to save to.
        counts: how many ranks.
        rounds: how many saves of each way count.
        layers: of the model.

    Returns:
        For each number of ranks, the seconds of all rounds of each way to save, from the first
        rank's start to the last one's return.

    Raises:
        RuntimeError: a rank failed.
    """
    found = []
    for ranks in counts:
        arguments = [str(ranks), str(rounds), str(layers), str(folder / f"ranks{ranks}")]
        command = [sys.executable, "-m", "benchmarks.many_ranks", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{ranks} ranks: {done.stderr[-2000:]}")
        found.append(json.loads(done.stdout.splitlines()[-1]))
    return found


def _model(layers: int) -> nn.Module:
    from torch.distributed.fsdp import fully_shard
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=512,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
    )
    model: Any = LlamaForCausalLM(config)
    for layer in model.model.layers:
        fully_shard(layer)
    fully_shard(model)
    return model  # type: ignore[no-any-return]


def _rank(rank: int, ranks: int, rounds: int, layers: int, folder: Path) -> None:
    from torch.distributed.checkpoint.state_dict_saver import save as save_by_dcp

    from canonical_saver import save_model

    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=ranks,
        timeout=timedelta(minutes=10),
    )
    torch.manual_seed(0)
    model = _model(layers)
    ways: dict[str, Callable[[Path], object]] = {
        REFERENCE: lambda place: save_model(model, place, progress=False),
        PEER: lambda place: save_by_dcp(model.state_dict(), checkpoint_id=str(place)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, save in ways.items():
            dist.barrier()
            begun = time.perf_counter()
            save(folder / f"{name}{number}")
            dist.barrier()
            if number:  # the first of each imports, and makes groups of its own
                seconds[name].append(time.perf_counter() - begun)
    if rank == 0:
        size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
        print(json.dumps({"ranks": ranks, "bytes": size, "seconds": seconds}), flush=True)
    dist.barrier()


def _main(ranks: int, rounds: int, layers: int, folder: Path) -> int:
    """Fork the ranks; returns 0 if all of them came to their end."""
    import torch.distributed.checkpoint.state_dict_saver
    import transformers.models.llama.modeling_llama  # noqa: F401

    import canonical_saver.save  # noqa: F401

    torch.set_num_threads(1)
    folder.mkdir(parents=True)
    processes: set[int] = set()
    for rank in range(ranks):
        process = os.fork()
        if process == 0:
            code = 1
            try:
                _rank(rank, ranks, rounds, layers, folder)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        processes.add(process)
    failed = 0
    while processes:
        process, status = os.wait()
        processes.discard(process)
        if status and not failed:
            failed = 1
            for other in processes:  # they would wait for it
                os.kill(other, signal.SIGKILL)
    return failed


if __name__ == "__main__":
    sys.exit(_main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])))
