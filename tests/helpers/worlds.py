"""Small worlds of ranks on this machine: each runs one function in every rank."""

from __future__ import annotations

import os
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

LIMIT = timedelta(seconds=60)


def run(world_size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Run ``function(rank, *arguments)`` in every rank and give the results back.

    Raises:
        AssertionError: a rank raised; the message is its traceback.
    """
    with tempfile.TemporaryDirectory() as folder:
        process = mp.start_processes(
            _rank_main,
            args=(world_size, folder, function, arguments),
            nprocs=world_size,
            start_method="spawn",
            join=False,
        )
        assert process is not None
        while not process.join(timeout=120):
            pass
        found = [torch.load(Path(folder) / f"{rank}.pt") for rank in range(world_size)]
    for rank, (result, error) in enumerate(found):
        assert error is None, f"rank {rank}: {error}"
        del result
    return [result for result, _ in found]


def _rank_main(
    rank: int, world_size: int, folder: str, function: Callable[..., Any], arguments: Any
) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "DS_ACCELERATOR": "cpu",
        "HF_HUB_OFFLINE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "0",
    }
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=world_size,
        timeout=LIMIT,
    )
    result, error = None, None
    try:
        result = function(rank, *arguments)
    except Exception:
        error = traceback.format_exc()
    torch.save((result, error), Path(folder) / f"{rank}.pt")
    if error is None:
        dist.barrier()
    dist.destroy_process_group()
    os._exit(0)
