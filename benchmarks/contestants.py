"""The ways to save that are compared, each called on every rank with the same model and folder.

``reference`` is ours and ``limit`` is what the disk allows: as many processes as there are ranks,
each writing its share of the same number of bytes to a file of its own in large pieces, always the
same ones, which the processor then has at hand. ``one_file`` is closer to what a saver must do: one
file for all, whose blocks are reserved, since a model is few files and the kernel lets one process
at a time write into a file; and each byte from its own place in memory. The others are what people
call today. ``unchecked`` is ours without its comparison of replicas, where there are any. A
contestant is left out of an engine whose models it cannot save.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from benchmarks.engines import ZERO, Trained
from benchmarks.ranks import barrier, rank, world_size

Contestant = Callable[[Trained, Path], None]

LIMIT_PIECE = 64 * 2**20
ONE_FILE_PIECE = 8 * 2**20


def reference(trained: Trained, folder: Path) -> None:
    """``canonical_saver.save_model``: each rank writes what it holds."""
    from canonical_saver import save_model

    save_model(trained.wrapped, folder)


def unchecked(trained: Trained, folder: Path) -> None:
    """The same without comparing what all ranks are said to hold before rank 0 writes it."""
    from canonical_saver import save_model

    save_model(trained.wrapped, folder, check_replicas=False)


def limit(trained: Trained, folder: Path) -> None:
    """Large writes of the same number of bytes, by as many processes, and nothing else."""
    handle = os.open(folder / f"limit-{rank()}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    _write(handle, 0, _share(trained), _data(LIMIT_PIECE), LIMIT_PIECE)


def one_file(trained: Trained, folder: Path) -> None:
    """The same into one file, and from memory as large as what is written."""
    path, share = folder / "limit", _share(trained)
    if rank() == 0:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        os.posix_fallocate(handle, 0, trained.size)
        os.close(handle)
    barrier()
    _write(os.open(path, os.O_WRONLY), rank() * share, share, _data(share), ONE_FILE_PIECE)


def _share(trained: Trained) -> int:
    return trained.size // world_size()


def _write(handle: int, offset: int, size: int, data: memoryview, piece: int) -> None:
    try:
        for start in range(0, size, piece):
            first = start % len(data)
            part = data[first : first + min(piece, size - start)]
            written = 0
            while written < len(part):
                written += os.pwrite(handle, part[written:], offset + start + written)
        os.fsync(handle)
    finally:
        os.close(handle)


@lru_cache(maxsize=2)
def _data(size: int) -> memoryview:
    """Bytes that no file system could compress."""
    block = os.urandom(min(size, 2**24))
    return memoryview(block * (size // len(block) + 1))[:size]


def save_pretrained(trained: Trained, folder: Path) -> None:
    """``PreTrainedModel.save_pretrained`` of rank 0."""
    if rank() == 0:
        trained.model.save_pretrained(folder)


def gather(trained: Trained, folder: Path) -> None:
    """Gather the whole state dict on rank 0, then ``save_file``: what the Trainer does."""
    state = _gathered(trained)
    if rank() == 0:
        save_file(
            {name: tensor.contiguous() for name, tensor in state.items()},
            folder / "model.safetensors",
            metadata={"format": "pt"},
        )


def _gathered(trained: Trained) -> dict[str, torch.Tensor]:
    found: Any
    if trained.engine == "fsdp2":
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        found = get_model_state_dict(trained.wrapped, options=options)
    elif trained.engine == "fsdp1":
        from torch.distributed.fsdp import (
            FullStateDictConfig,
            FullyShardedDataParallel,
            StateDictType,
        )

        with FullyShardedDataParallel.state_dict_type(
            trained.wrapped,
            StateDictType.FULL_STATE_DICT,
            FullStateDictConfig(offload_to_cpu=True, rank0_only=True),
        ):
            found = trained.wrapped.state_dict()
    else:
        found = trained.wrapped._zero3_consolidated_16bit_state_dict()
    return found or {}


def accelerate(trained: Trained, folder: Path) -> None:
    """``accelerate.Accelerator.save_model``."""
    accelerator = _accelerator(trained.engine)
    accelerator.save_model(trained.wrapped, folder, max_shard_size="50GB")


def _accelerator(engine: str) -> Any:
    if engine not in _ACCELERATORS:
        from accelerate import Accelerator
        from accelerate.utils import DeepSpeedPlugin, FullyShardedDataParallelPlugin

        if engine == "zero3":
            os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
            made = Accelerator(deepspeed_plugin=DeepSpeedPlugin(hf_ds_config=ZERO))
            # What ``prepare`` does; here the engine is there already.
            made.deepspeed_config = made.deepspeed_plugin.deepspeed_config
        else:
            os.environ["ACCELERATE_USE_FSDP"] = "true"
            plugin = FullyShardedDataParallelPlugin(
                fsdp_version=int(engine[-1]),
                sync_module_states=False,
                cpu_ram_efficient_loading=False,
            )
            made = Accelerator(fsdp_plugin=plugin)
        _ACCELERATORS[engine] = made
    return _ACCELERATORS[engine]


_ACCELERATORS: dict[str, Any] = {}


def consolidating(trained: Trained, folder: Path) -> None:
    """torch.distributed.checkpoint's Hugging Face writer, joining the ranks' shards at the end."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict import get_model_state_dict
    from torch.distributed.checkpoint.state_dict_saver import save

    state = get_model_state_dict(trained.wrapped)
    writer = HuggingFaceStorageWriter(
        path=str(folder),
        fqn_to_index_mapping=dict.fromkeys(state, 1),
        save_distributed=True,
        enable_consolidation=True,
    )
    save(state, storage_writer=writer)


def save_16bit_model(trained: Trained, folder: Path) -> None:
    """``DeepSpeedEngine.save_16bit_model``: gathers on rank 0 and writes a pickle."""
    trained.wrapped.save_16bit_model(str(folder), "pytorch_model.bin")


NAMES = {
    "reference": "canonical_saver",
    "limit": "limit of the disk",
    "one_file": "limit of one file",
    "gather": "gather + save_file",
    "accelerate": "accelerate",
    "consolidating": "DCP, consolidated",
    "save_16bit_model": "save_16bit_model",
    "save_pretrained": "save_pretrained",
    "unchecked": "canonical_saver, check_replicas=False",
}
"""As on the page."""

OURS: dict[str, Contestant] = {
    "reference": reference,
    "unchecked": unchecked,
    "limit": limit,
    "one_file": one_file,
}
COPIES = frozenset({"ddp", "zero2"})
"""Engines of which every rank holds the whole model, which costs a comparison."""

PEERS: dict[str, dict[str, Contestant]] = {
    "single": {"save_pretrained": save_pretrained},
    "ddp": {"save_pretrained": save_pretrained},
    "fsdp1": {"gather": gather},
    "fsdp2": {"gather": gather, "accelerate": accelerate, "consolidating": consolidating},
    "zero2": {"save_pretrained": save_pretrained, "save_16bit_model": save_16bit_model},
    "zero3": {"gather": gather, "accelerate": accelerate, "save_16bit_model": save_16bit_model},
}
