"""DeepSpeed's tensor-parallel layers and its experts are put together, from plain tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from tests.helpers import models, worlds
from tests.helpers.versions import is_at_least
from torch import nn

from canonical_saver import SaveError, save_model


def error_of(*arguments: Any, **options: Any) -> str:
    try:
        save_model(*arguments, **options)
    except SaveError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def cut(model: Any, group: Any) -> Any:
    """Put tensor-parallel layers in the place of some of a Llama."""
    from deepspeed.module_inject.layers import (
        LinearAllreduce,
        LinearLayer,
        SubParamLinearLayer,
        VocabParallelEmbedding,
        VocabParallelLinear,
    )

    for number, layer in enumerate(model.model.layers):
        mlp, attention = layer.mlp, layer.self_attn
        mlp.down_proj = LinearAllreduce(mlp.down_proj, group, name=f"{number}.mlp.down_proj")
        mlp.up_proj = LinearLayer(mlp.up_proj, group, name=f"{number}.mlp.up_proj")
        attention.q_proj = SubParamLinearLayer(attention.q_proj, group, shape=((10, 22), -1))
        attention.o_proj = LinearAllreduce(attention.o_proj, group)
    head = VocabParallelLinear(model.lm_head, group, name="lm_head")
    tied = head if model.config.tie_word_embeddings else None
    embedding = model.model.embed_tokens
    model.model.embed_tokens = VocabParallelEmbedding(
        embedding, group, tied_vocab_parallel_linear=tied
    )
    model.lm_head = head
    return model


def save_cut(rank: int, folder: str) -> list[str]:
    import deepspeed
    from deepspeed.module_inject.layers import conv_LinearLayer

    deepspeed.init_distributed("gloo")
    world = dist.get_world_size()
    groups = [dist.new_group([first, first + 1]) for first in range(0, world, 2)]
    group = groups[rank // 2]
    errors = []
    for tied in (False, True):
        model = cut(models.llama(biases=True, tied=tied), group)
        errors.append(error_of(model, f"{folder}/{world}-{tied}", verify="full"))
    engine = deepspeed.initialize(
        model=cut(models.llama(), group),
        config={"train_micro_batch_size_per_gpu": 1},
        mpu=_Mpu(group, [dist.new_group(list(range(n, world, 2))) for n in range(2)][rank % 2]),
    )[0]
    errors.append(error_of(engine, f"{folder}/{world}-engine"))
    odd = models.llama()
    odd.lm_head = conv_LinearLayer(nn.Linear(32, 32, bias=False), group)
    errors.append(error_of(odd, f"{folder}/odd"))
    return errors


needs_layers = pytest.mark.skipif(
    not is_at_least("deepspeed", "0.19"),
    reason="DeepSpeed before 0.19 has no tensor-parallel layers of vocabularies",
)


class _Mpu:
    """Tells DeepSpeed which ranks hold parts of one model."""

    def __init__(self, model: Any, data: Any) -> None:
        self._model, self._data = model, data

    def get_model_parallel_group(self) -> Any:
        return self._model

    def get_model_parallel_world_size(self) -> int:
        return dist.get_world_size(self._model)

    def get_model_parallel_rank(self) -> int:
        return dist.get_rank(self._model)

    def get_data_parallel_group(self) -> Any:
        return self._data

    def get_data_parallel_world_size(self) -> int:
        return dist.get_world_size(self._data)

    def get_data_parallel_rank(self) -> int:
        return dist.get_rank(self._data)


def check_cut(world_size: int, folder: Path) -> None:
    errors = worlds.run(world_size, save_cut, str(folder))
    for of_rank in errors:
        assert of_rank[:3] == ["", "", ""], of_rank
        assert "description" in of_rank[3], of_rank
    for name, options in (("False", {"biases": True}), ("True", {"biases": True, "tied": True})):
        model: Any = models.llama(**options)
        model.save_pretrained(folder / "golden" / name)
        golden = (folder / "golden" / name / "model.safetensors").read_bytes()
        assert (folder / f"{world_size}-{name}" / "model.safetensors").read_bytes() == golden, name
    plain = models.llama().state_dict()
    written = load_file(folder / f"{world_size}-engine" / "model.safetensors")
    assert written.keys() == plain.keys()
    assert all(torch.equal(written[key], plain[key]) for key in plain)


@needs_layers
def test_tensor_parallel_layers_are_put_together(tmp_path: Path) -> None:
    check_cut(2, tmp_path)


@needs_layers
def test_tensor_parallel_layers_with_data_parallel_copies_are_put_together(tmp_path: Path) -> None:
    check_cut(4, tmp_path)


class Expert(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 5)


def mixture(ep_size: int) -> Any:
    """A model whose experts have their number among all as their values."""
    from deepspeed.moe.layer import MoE

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), MoE(6, Expert(), num_experts=4, ep_size=ep_size))
    return model


def fill(model: Any, first: int) -> Any:
    with torch.no_grad():
        for number, expert in enumerate(model[1].deepspeed_moe.experts.deepspeed_experts):
            for parameter in expert.parameters():
                parameter.copy_(torch.full_like(parameter, first + number))
    return model


def save_mixture(rank: int, folder: str) -> list[str]:
    import deepspeed

    deepspeed.init_distributed("gloo")
    errors = [error_of(mixture(2), f"{folder}/without-a-group")]
    model = mixture(2)
    model[1].set_deepspeed_parallelism()
    ep_rank = dist.get_rank(model[1].deepspeed_moe.ep_group)
    errors.append(error_of(fill(model, 2 * ep_rank), f"{folder}/layer", verify="full"))
    model = fill(mixture(2), 2 * ep_rank)
    engine = deepspeed.initialize(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        config={
            "train_micro_batch_size_per_gpu": 1,
            "zero_allow_untested_optimizer": True,
        },
    )[0]
    errors.append(error_of(engine, f"{folder}/engine"))
    with torch.no_grad():
        model[1].deepspeed_moe.experts.deepspeed_experts[0].inner.weight.add_(rank)
    errors.append(error_of(model, f"{folder}/other"))
    return errors


def test_experts_of_deepspeed_get_their_numbers(tmp_path: Path) -> None:
    errors = worlds.run(4, save_mixture, str(tmp_path))
    for of_rank in errors:
        assert "no group" in of_rank[0]
        assert of_rank[1:3] == ["", ""], of_rank
        assert "deepspeed_experts.0.inner.weight'" in of_rank[3], of_rank
    golden = fill(mixture(1), 0).state_dict()
    assert sum("deepspeed_experts.3" in key for key in golden) == 2
    for name in ("layer", "engine"):
        written = load_file(tmp_path / name / "model.safetensors")
        assert written.keys() == golden.keys()
        assert all(torch.equal(written[key], golden[key]) for key in golden), name
