"""Simulated ranks hold what FSDP2 and the saver's engines say that real ones hold."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from benchmarks.scale.simulate import HOLDERS, buffers_of, distribute, lay_out, planned_ranges
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from benchmarks import models
from canonical_saver.errors import VerifyError

CODE = """
import json, sys
import torch
from benchmarks.scale.one_rank import join, shard
from tests.benchmarks.test_scale import mixture
from canonical_saver import formats, request, weights
from canonical_saver.weights.engines import find_engines
from canonical_saver.writing.write_items import ranges, write_items
engine, rank, world = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
join(rank, world)
model = mixture()
shard(model, engine)
files = formats.find_format("safetensors").lay_out(
    weights.collect(model, find_engines((model,), rank)), request.build(model, "plan")
)
print(json.dumps(ranges(write_items(files))))
"""


def mixture() -> torch.nn.Module:
    """Fused experts, of which there are fewer than ranks in one of the tests."""
    config = Qwen3MoeConfig(
        vocab_size=67,
        hidden_size=32,
        moe_intermediate_size=6,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        num_experts=5,
        num_experts_per_tok=2,
    )
    with torch.device("meta"):
        model: torch.nn.Module = Qwen3MoeForCausalLM(config)
    return model


@pytest.mark.parametrize(("engine", "rank", "world"), [("fsdp2", 1, 3), ("zero3", 6, 7)])
def test_a_simulated_rank_writes_what_a_real_one_does(engine: str, rank: int, world: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, engine, str(rank), str(world)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    model = mixture()
    simulated = planned_ranges(lay_out(model), buffers_of(model), HOLDERS[engine], world)
    assert simulated[rank].tolist() == json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("engine", ["fsdp2", "zero3"])
@pytest.mark.parametrize("world", [1, 2, 3, 64])
def test_all_ranks_tile_every_file(engine: str, world: int) -> None:
    model = mixture()
    files = lay_out(model)
    found = distribute(files, buffers_of(model), HOLDERS[engine], world)
    assert found.bytes == sum(file.size - len(file.header) for file in files)
    assert found.imbalance(world) >= 1
    assert (found.empty > 0) is (engine == "fsdp2" and world == 64)


def test_what_a_rank_forgets_is_found() -> None:
    model = mixture()

    def forgetful(source, rank, world):
        return HOLDERS["zero3"](source, rank, world)[: rank != 1]

    with pytest.raises(VerifyError, match="a gap"):
        distribute(lay_out(model), buffers_of(model), forgetful, 2)


def test_a_model_has_about_the_wanted_size() -> None:
    for size in (8 * 10**6, 250 * 10**6, 10**9, 2 * 10**9, 4 * 10**9):
        model = models.empty(models.config(size))
        found = sum(p.numel() * p.element_size() for p in model.parameters())
        assert found == pytest.approx(size, rel=0.15)
