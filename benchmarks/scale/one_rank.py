"""Plans as one rank of many, in a process of its own, and says what that cost it.

The rank is real but for its group, which is torch's ``fake`` one: FSDP2 shards the model for it. Of
ZeRO-3, only the attributes that DeepSpeed's partitioning leaves on a parameter are set.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from benchmarks.kernel import peak_memory, reset_peak, resident_memory
from benchmarks.scale import shapes
from canonical_saver import formats, request, weights
from canonical_saver.weights.engines import find_engines
from canonical_saver.writing.tiling import prove_tiling
from canonical_saver.writing.write_items import packed, ranges, write_items


def join(rank: int, world_size: int) -> None:
    """Become one rank of a group in which the others do not exist."""
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=world_size)


def shard(model: Any, engine: str) -> None:
    """Give a model on the meta device to an engine."""
    if engine == "fsdp2":
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        for layer in model.model.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        return
    for number, parameter in enumerate(model.parameters()):
        part = -(-parameter.numel() // dist.get_world_size())
        parameter.ds_id = number
        parameter.ds_shape, parameter.ds_numel = parameter.shape, parameter.numel()
        parameter.ds_tensor = torch.empty(part, dtype=parameter.dtype, device="meta")
        parameter.ds_tensor.ds_numel = part
        parameter.ds_process_group = dist.group.WORLD


def main(name: str, engine: str, rank: int, world_size: int, everyone: Path) -> dict[str, float]:
    """Plan, and prove the tiling with the ranges of all others.

    Returns:
        Seconds of this process and bytes of extra memory.
    """
    join(rank, world_size)
    model = shapes.build(name)
    shard(model, engine)
    weights.collect(torch.nn.Linear(1, 1), find_engines((torch.nn.Linear(1, 1),), 0))  # imports
    before = resident_memory()
    reset_peak()
    begun = time.process_time()
    wanted = request.build(model, "plan")
    files = formats.find_format(wanted.format).lay_out(
        weights.collect(model, find_engines((model,), rank)), wanted
    )
    mine = packed(ranges(write_items(files)))
    planned = time.process_time()
    others = torch.load(everyone)
    others[rank] = mine
    prove_tiling(files, others)
    ended = time.process_time()
    return {
        "plan_seconds": planned - begun,
        "prove_seconds": ended - planned,
        "memory": peak_memory() - before,
    }


if __name__ == "__main__":
    print(
        json.dumps(
            main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
        )
    )
