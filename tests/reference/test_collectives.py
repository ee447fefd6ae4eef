"""Ranks that fail, ranks that see another disk, and meshes."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from tests.helpers import models, worlds
from tests.helpers.engines import wrap

from canonical_saver import Progress, SaveError, save_model
from canonical_saver.collectives import Ranks
from canonical_saver.messages import MESSAGE
from canonical_saver.weights.engines import dtensor
from canonical_saver.writing import shared_folder


def error_of(*arguments: Any, **options: Any) -> str:
    try:
        save_model(*arguments, **options)
    except SaveError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def fail_on_rank_one(rank: int, folder: str) -> list[str]:
    """Provoke failures in several phases; returns each error's text."""
    model = wrap("fsdp2", models.llama())
    errors = [error_of(model, f"{folder}/m" if rank else 7)]
    with pytest.MonkeyPatch.context() as patch:
        if rank == 1:
            patch.setattr(dtensor, "model_tensor", lambda _: 1 / 0)
        errors.append(error_of(model, f"{folder}/m"))
    with pytest.MonkeyPatch.context() as patch:
        if rank == 1:
            patch.setattr("canonical_saver.writing.writer.elements", lambda *_: 1 / 0)
        errors.append(error_of(model, f"{folder}/m"))
    other = models.llama() if rank else models.mixtral()
    errors.append(error_of(other, f"{folder}/m"))
    return errors


def test_an_error_on_one_is_an_error_on_all(tmp_path: Path) -> None:
    first, second = worlds.run(2, fail_on_rank_one, str(tmp_path))
    assert first == second
    assert ["rank 0" in e for e in first] == [True, False, False, True]
    assert ["ZeroDivisionError" in e for e in first] == [False, True, True, False]
    assert not (tmp_path / "m").exists()


OUTLIVE = """
import os, sys, torch, torch.distributed as dist
from canonical_saver.collectives import Ranks

sys.setswitchinterval(100)
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
for _ in range(200):
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 2))
    Ranks.current().gather("something")
    dist.destroy_process_group()
    del model
"""


def test_a_model_may_outlive_the_process_group() -> None:
    """On one core, where a thread that frees what was gathered comes late, and keeps no turn."""
    subprocess.run([sys.executable, "-c", OUTLIVE], check=True, timeout=120)


COLLECTIVES = ("all_gather", "barrier", "broadcast", "gather", "reduce", "scatter", "send", "recv")


def count_collectives(rank: int, folder: str) -> int:
    """Save once; returns how many messages and collectives it took of this rank."""
    model, calls = wrap("fsdp2", models.llama()), 0

    def counted(function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            return function(*arguments, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in COLLECTIVES:
            patch.setattr(dist, name, counted(getattr(dist, name)))
        save_model(model, f"{folder}/m")
    return calls


def test_plain_save_takes_few_collectives(tmp_path: Path) -> None:
    found = worlds.run(2, count_collectives, str(tmp_path))
    assert all(0 < count <= 8 for count in found), found


def tell_much(rank: int) -> list[int]:
    """Exchange messages of which some are longer than fit into one."""
    ranks = Ranks.current()
    sizes = [0, 3 * MESSAGE, MESSAGE - 100]
    told = ranks.exchange("tell", lambda: bytes([rank]) * sizes[rank])
    assert told == [bytes([rank]) * size for rank, size in enumerate(sizes)]
    return [len(text) for text in ranks.gather("x" * sizes[rank])]


def test_messages_may_be_longer_than_the_first_exchange() -> None:
    for found in worlds.run(3, tell_much):
        assert found == [0, 3 * MESSAGE, MESSAGE - 100]


def save_on_two_disks(rank: int, folder: str) -> None:
    look = shared_folder.look
    with pytest.MonkeyPatch.context() as patch:
        if rank:  # as on a host whose folder of the same path is another one
            patch.setattr(shared_folder, "look", lambda path, *_: look(path, "nothing", ""))
        with pytest.MonkeyPatch.context() as failing:
            if rank == 1:
                failing.setattr("canonical_saver.writing.writer.elements", lambda *_: 1 / 0)
            error = error_of(wrap("fsdp2", models.llama()), f"{folder}/failed")
        assert "rank 1 failed in phase 'relay'" in error
        for engine in ("ddp", "fsdp2", "zero3"):
            told: list[Progress] = []
            model = wrap(engine, models.mixtral())
            output = f"{folder}/{engine}"
            save_model(model, output, verify="full", portable=False, progress=told.append)
            assert bool(told) == (rank == 0), "it wrote where it does not see"


def test_ranks_without_a_common_disk(tmp_path: Path) -> None:
    worlds.run(3, save_on_two_disks, str(tmp_path))
    model: Any = models.mixtral()
    model.save_pretrained(tmp_path / "golden")
    expected = models.contents(tmp_path / "golden")
    for engine in ("ddp", "fsdp2", "zero3"):
        assert models.contents(tmp_path / engine) == expected


def save_on_a_mesh(rank: int, folder: str) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor.parallel import (
        ColwiseParallel,
        RowwiseParallel,
        parallelize_module,
    )

    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    model: Any = models.llama()
    for layer in model.model.layers:
        plan = {
            "self_attn.q_proj": ColwiseParallel(),
            "mlp.gate_proj": ColwiseParallel(),
            "mlp.down_proj": RowwiseParallel(),
        }
        parallelize_module(layer, mesh["tp"], plan)
    save_model(model, f"{folder}/tp", verify="full")
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh["dp"])
    fully_shard(model, mesh=mesh["dp"])
    save_model(model, f"{folder}/tp-fsdp", verify="full")


def test_tensor_parallel(tmp_path: Path) -> None:
    worlds.run(4, save_on_a_mesh, str(tmp_path))
    model: Any = models.llama()
    model.save_pretrained(tmp_path / "golden")
    golden = (tmp_path / "golden" / "model.safetensors").read_bytes()
    for name in ("tp", "tp-fsdp"):
        assert (tmp_path / name / "model.safetensors").read_bytes() == golden


def save_turned(rank: int, folder: str) -> None:
    from transformers.core_model_loading import Transpose, WeightConverter

    for engine in ("fsdp1", "fsdp2", "zero3", "ddp"):
        model: Any = models.llama()
        turned = [
            WeightConverter("q_turned.weight", "q_proj.weight", [Transpose(0, 1)]),
            WeightConverter("down_turned.weight", "down_proj.weight", [Transpose(0, 1)]),
        ]
        model._weight_conversions = turned
        original = copy.deepcopy(model)
        if rank == 0:
            original.save_pretrained(f"{folder}/golden")
        save_model(wrap(engine, model), f"{folder}/{engine}", verify="full")
        dist.barrier()


def test_computed_conversions(tmp_path: Path) -> None:
    worlds.run(2, save_turned, str(tmp_path))
    golden = (tmp_path / "golden" / "model.safetensors").read_bytes()
    assert b"q_turned" in golden
    for engine in ("fsdp1", "fsdp2", "zero3", "ddp"):
        assert (tmp_path / engine / "model.safetensors").read_bytes() == golden


def save_other_formats(rank: int, folder: str) -> bool:
    import torch.distributed.checkpoint as dcp

    for engine in ("fsdp1", "fsdp2", "zero3"):
        model = wrap(engine, models.llama())
        save_model(model, f"{folder}/{engine}-torch", format="torch", max_shard_size="30KB")
        save_model(model, f"{folder}/{engine}-dcp", format="dcp")
    same = True
    for engine in ("fsdp1", "fsdp2", "zero3"):
        expected = models.llama().state_dict()
        found = {key: torch.zeros_like(value) for key, value in expected.items()}
        dcp.load(found, checkpoint_id=f"{folder}/{engine}-dcp")
        same = same and all(torch.equal(found[key], expected[key]) for key in expected)
    return same


def test_other_formats(tmp_path: Path) -> None:
    assert all(worlds.run(2, save_other_formats, str(tmp_path)))
    expected = models.llama().state_dict()
    for engine in ("fsdp1", "fsdp2", "zero3"):
        found: dict[str, torch.Tensor] = {}
        for path in sorted((tmp_path / f"{engine}-torch").glob("*.bin")):
            found |= torch.load(path, weights_only=True)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)


def save_drifted_replicas(rank: int, folder: str) -> None:
    model = wrap("ddp", models.llama())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(rank)
    save_model(model, f"{folder}/drifted", portable=False)


def test_drifted_replicas_are_not_mixed(tmp_path: Path) -> None:
    worlds.run(2, save_drifted_replicas, str(tmp_path))
    models.llama().save_pretrained(tmp_path / "golden")
    assert models.contents(tmp_path / "drifted") == models.contents(tmp_path / "golden")
