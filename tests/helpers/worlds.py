"""Small worlds of ranks on this machine: each runs one function in every rank.

Ranks are forked from a server that has imported the libraries once: to import them takes longer
than most tests.
"""

from __future__ import annotations

import multiprocessing
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

LIMIT = timedelta(minutes=5)
IMPORTED = ["accelerate", "canonical_saver", "deepspeed", "peft", "tests.helpers.models"]
_ENVIRONMENT = {"DS_ACCELERATOR": "cpu", "HF_HUB_OFFLINE": "1"}
"""What libraries read while they are imported."""


def run(world_size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Run ``function(rank, *arguments)`` in every rank and give the results back.

    Raises:
        AssertionError: a rank raised; the message is its traceback.
    """
    os.environ |= _ENVIRONMENT
    multiprocessing.get_context("forkserver").set_forkserver_preload(IMPORTED)
    with tempfile.TemporaryDirectory() as folder:
        process = mp.start_processes(
            _rank_main,
            args=(world_size, folder, dict(os.environ), function, arguments),
            nprocs=world_size,
            start_method="forkserver",
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
    rank: int,
    world_size: int,
    folder: str,
    environment: dict[str, str],
    function: Callable[..., Any],
    arguments: Any,
) -> None:
    os.environ |= environment | {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
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
