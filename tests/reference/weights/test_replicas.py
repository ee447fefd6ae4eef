"""Ranks that are said to hold the same are compared; what another rank alone has is never lost."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file
from tests.helpers import models, worlds
from tests.helpers.engines import wrap
from torch import nn

from canonical_saver import SaveError, save_model, save_trained_model
from canonical_saver.weights.config_shapes import expected, is_part

Outcome = tuple[str, tuple[str, ...]]
"""The error's text, or "", and the warnings."""


def save(model: Any, folder: str, **options: Any) -> Outcome:
    try:
        return "", save_model(model, folder, **options).warnings
    except SaveError as error:
        return f"{type(error).__name__}: {error}", ()


class Expert(nn.Module):
    """Other weights on every rank, in plain tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(3, 5)
        self.expert = nn.Linear(5, 7)
        with torch.no_grad():
            for parameter in self.router.parameters():
                parameter.fill_(1)
            for parameter in self.expert.parameters():
                parameter.fill_(dist.get_rank() + 1)


class Statistics(nn.Module):
    """Buffers that ranks keep for themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(6)
        self.register_buffer("seen", torch.tensor(100 + dist.get_rank()))
        self.norm(torch.full((2, 6), float(dist.get_rank())))


class Codes(nn.Module):
    """Packed weights in a buffer, as quantized layers have them."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.register_buffer("codes", torch.full((3, 4), dist.get_rank(), dtype=torch.int32))


def plain_experts(folder: str) -> Outcome:
    return save(Expert(), folder)


def plain_experts_unchecked(folder: str) -> Outcome:
    return save(Expert(), folder, check_replicas=False)


def unchecked_by_cfg(folder: str) -> Outcome:
    save_trained_model({"output_dir": folder, "save_check_replicas": False}, None, Expert())
    return "", ()


def experts_that_ddp_ignores(folder: str) -> Outcome:
    model = Expert()
    ignored = ["expert.weight", "expert.bias"]
    nn.parallel.DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, ignored)
    return save(nn.parallel.DistributedDataParallel(model), folder)


def drifted_below_ddp(folder: str) -> Outcome:
    model: Any = nn.parallel.DistributedDataParallel(Expert())
    model.module.expert.bias.data += 0.3 * dist.get_rank()
    return save(model, folder)


def drifted_slightly(folder: str) -> Outcome:
    model: Any = models.llama()
    model.lm_head.weight.data *= 1 + 1e-5 * dist.get_rank()
    return save(model, folder)


def statistics(folder: str) -> Outcome:
    return save(Statistics(), folder)


def packed_weights(folder: str) -> Outcome:
    return save(Codes(), folder)


def adapters_trained_apart(folder: str) -> Outcome:
    return save(models.peft(seed=dist.get_rank()), folder)


def parts_below_ddp(folder: str) -> Outcome:
    """Halves of a layer, told by the configuration where DDP says that they are copies."""
    model: Any = models.llama()
    ddp: Any = nn.parallel.DistributedDataParallel(model)
    up = model.model.layers[0].mlp.up_proj
    up.weight.data = up.weight.data[dist.get_rank() * 18 :][:18].clone()
    return save(ddp, folder)


def nan_payloads(folder: str) -> Outcome:
    model = nn.Linear(2, 2)
    bits = torch.full((2, 2), 0x7FC00000 + dist.get_rank(), dtype=torch.int32)
    model.weight.data = bits.view(torch.float32)
    with torch.no_grad():
        model.bias.zero_()
    return save(model, folder)


def shapes_alone_on_rank_one(folder: str) -> Outcome:
    """Rank 0 has the model, rank 1 a copy without data."""
    model = nn.Linear(2, 3, device="meta" if dist.get_rank() else "cpu")
    return save(model, folder)


ON_TWO: tuple[Callable[[str], Outcome], ...] = (
    plain_experts,
    plain_experts_unchecked,
    unchecked_by_cfg,
    experts_that_ddp_ignores,
    drifted_below_ddp,
    drifted_slightly,
    statistics,
    packed_weights,
    adapters_trained_apart,
    parts_below_ddp,
    nan_payloads,
    shapes_alone_on_rank_one,
)


def run_all(rank: int, cases: tuple[Callable[[str], Outcome], ...], folder: str) -> list[Outcome]:
    return [case(f"{folder}/{case.__name__}") for case in cases]


def outcomes(
    world_size: int, cases: tuple[Callable[[str], Outcome], ...], folder: Path
) -> dict[str, Outcome]:
    """Run the cases, which must end alike on every rank."""
    found = worlds.run(world_size, run_all, cases, str(folder))
    assert all(of_rank == found[0] for of_rank in found)
    return {case.__name__: outcome for case, outcome in zip(cases, found[0], strict=True)}


def test_replicas_that_differ_on_two_ranks(tmp_path: Path) -> None:
    found = outcomes(2, ON_TWO, tmp_path)

    for name in ("plain_experts", "experts_that_ddp_ignores"):
        error, _ = found[name]
        assert error.startswith("VerifyError: 'expert.weight'"), (name, error)
        assert "rank 1" in error
        assert "parallelism without DTensor" in error
        assert "check_replicas=False" in error
        assert not (tmp_path / name).exists()
    for name in ("packed_weights", "adapters_trained_apart"):
        assert found[name][0].startswith("VerifyError"), name
        assert not (tmp_path / name).exists()
    assert "'codes'" in found["packed_weights"][0]
    assert "lora" in found["adapters_trained_apart"][0]
    # A NaN with another payload is another value, but copies that only differ so have drifted.
    assert len(found["nan_payloads"][1]) == 1

    error, _ = found["parts_below_ddp"]
    assert "'model.layers.0.mlp.up_proj.weight'" in error
    assert "(18, 32)" in error
    assert "(37, 32)" in error
    assert "tensor parallelism" in error

    assert found["shapes_alone_on_rank_one"] == ("", ())
    for name in ("plain_experts_unchecked", "unchecked_by_cfg"):
        assert found[name] == ("", ())
        assert load_file(tmp_path / name / "model.safetensors")["expert.weight"].unique() == 1

    error, (warning,) = found["drifted_below_ddp"]
    assert not error
    assert "'expert.bias' on rank 1" in warning
    assert load_file(tmp_path / "drifted_below_ddp/model.safetensors")["expert.bias"].unique() == 1
    error, (warning,) = found["drifted_slightly"]
    assert not error
    assert "1 tensors have drifted" in warning
    assert "'lm_head.weight'" in warning
    error, (warning,) = found["statistics"]
    assert not error
    assert "buffers differ" in warning
    assert load_file(tmp_path / "statistics" / "model.safetensors")["seen"] == 100


def hybrid_fsdp2(folder: str) -> Outcome:
    return save(_perturbed(wrap("hsdp", models.llama()), 1.0), folder)


def hybrid_fsdp2_close(folder: str) -> Outcome:
    return save(_perturbed(wrap("hsdp", models.llama()), 1e-6), folder)


def _perturbed(model: Any, by: float) -> Any:
    """Let the second group of replicas differ in one tensor."""
    if dist.get_rank() >= 2:
        model.lm_head.weight.to_local().data.mul_(1 + by)
    return model


def hybrid_fsdp1(folder: str, by: float = 1.0) -> Outcome:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy

    model: Any = FullyShardedDataParallel(
        models.llama(),
        device_mesh=init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard")),
        sharding_strategy=ShardingStrategy.HYBRID_SHARD,
        device_id=torch.device("cpu"),
        use_orig_params=True,
    )
    flat = model._handle.flat_param
    if dist.get_rank() >= 2:
        getattr(flat, "_local_shard", flat.data).data.mul_(1 + by)
    return save(model, folder)


def hybrid_fsdp1_equal(folder: str) -> Outcome:
    return hybrid_fsdp1(folder, 0.0)


def groups_fsdp1(folder: str, by: float = 0.0) -> Outcome:
    """Each pair of ranks shards a model of its own."""
    from torch.distributed.fsdp import FullyShardedDataParallel

    groups = [dist.new_group([0, 1]), dist.new_group([2, 3])]
    model: Any = FullyShardedDataParallel(
        models.llama(), process_group=groups[dist.get_rank() // 2], device_id=torch.device("cpu")
    )
    flat = model._handle.flat_param
    if dist.get_rank() >= 2:
        getattr(flat, "_local_shard", flat.data).data.mul_(1 + by)
    return save(model, folder)


def groups_fsdp1_other(folder: str) -> Outcome:
    return groups_fsdp1(folder, 1.0)


def replicated_dtensor(folder: str) -> Outcome:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Replicate, Shard

    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    model = nn.Linear(8, 4, bias=False)
    local = torch.full((2, 8), float(dist.get_rank()))
    weight = DTensor.from_local(local, mesh, [Replicate(), Shard(0)], run_check=False)
    model.weight = nn.Parameter(weight)
    return save(model, folder)


def experts_on_a_submesh(folder: str) -> Outcome:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("fsdp", "ep"))
    model = Expert()
    with torch.no_grad():
        model.expert.weight.fill_(mesh["ep"].get_local_rank())
        model.expert.bias.fill_(1)
    fully_shard(model.expert, mesh=mesh["fsdp"])
    fully_shard(model, mesh=init_device_mesh("cpu", (4,)))
    return save(model, folder)


def twins_on_a_submesh(folder: str) -> Outcome:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    model = nn.Linear(8, 5)
    with torch.no_grad():
        model.weight.fill_(3)
        model.bias.fill_(4)
    model.weight = nn.Parameter(distribute_tensor(model.weight.data, mesh["tp"], [Shard(0)]))
    return save(model, folder)


ON_FOUR: tuple[Callable[[str], Outcome], ...] = (
    hybrid_fsdp2,
    hybrid_fsdp2_close,
    hybrid_fsdp1,
    hybrid_fsdp1_equal,
    groups_fsdp1,
    groups_fsdp1_other,
    replicated_dtensor,
    experts_on_a_submesh,
    twins_on_a_submesh,
)


def test_replicas_that_differ_on_four_ranks(tmp_path: Path) -> None:
    found = outcomes(4, ON_FOUR, tmp_path)
    assert "'lm_head.weight'" in found["hybrid_fsdp2"][0]
    assert "ranks 2, 3" in found["hybrid_fsdp2"][0] or "rank 2" in found["hybrid_fsdp2"][0]
    refused = ("hybrid_fsdp1", "groups_fsdp1_other", "replicated_dtensor", "experts_on_a_submesh")
    for name in refused:
        assert found[name][0].startswith("VerifyError"), (name, found[name])
        assert not (tmp_path / name).exists()
    assert "'expert.weight'" in found["experts_on_a_submesh"][0]
    assert "on rank 1" in found["experts_on_a_submesh"][0]
    assert "on rank 2" in found["replicated_dtensor"][0]

    error, (warning,) = found["hybrid_fsdp2_close"]
    assert not error
    assert warning.startswith("1 tensors")
    assert "'lm_head.weight'" in warning
    for name in ("hybrid_fsdp1_equal", "groups_fsdp1", "twins_on_a_submesh"):
        assert found[name] == ("", ()), name
    golden = models.llama().state_dict()
    for name in ("hybrid_fsdp2_close", "hybrid_fsdp1_equal", "groups_fsdp1"):
        written = load_file(tmp_path / name / "model.safetensors")
        assert all(torch.equal(written[key], golden[key]) for key in golden), name


def test_expected_shapes_are_those_of_the_configuration() -> None:
    model = models.llama()
    model.resize_token_embeddings(71)
    before, config = torch.get_rng_state(), copy.deepcopy(model.config)
    found = expected(model, ["lm_head.weight", "no such name"])
    assert found == {"lm_head.weight": (71, 32)}
    assert torch.equal(torch.get_rng_state(), before)
    assert model.config.to_dict() == config.to_dict()
    assert expected(nn.Linear(2, 2), ["weight"]) == {}


def test_is_part_asks_for_one_dimension_divided_by_ranks() -> None:
    assert is_part((18, 32), (37, 32), 2)
    assert is_part((19, 32), (37, 32), 4)
    assert not is_part((12, 32), (37, 32), 4)
    assert not is_part((37, 32), (37, 32), 4)
    assert not is_part((18, 16), (37, 32), 2)
    assert not is_part((35, 32), (37, 32), 2)
    assert not is_part((18,), (37, 32), 2)
