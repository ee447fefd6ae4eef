"""DeepSpeed's mixture of experts: each rank holds some experts, all under the numbers from 0 on.

They get the numbers that DeepSpeed's own checkpoints give them (``runtime/engine.py``): rank ``r``
of an expert-parallel group with ``n`` experts a rank has those from ``r * n`` on. These are the
names that the model has on one process, where all experts are local. DeepSpeed itself is never
imported.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch.distributed as dist
from torch import nn

from canonical_saver.errors import WeightsError
from canonical_saver.weights.engines.deepspeed_classes import is_a
from canonical_saver.weights.module_tree import named_modules
from canonical_saver.weights.tensors import ModelTensor


@dataclass(frozen=True)
class _Layer:
    """One layer of experts.

    Attributes:
        place: beginning of its experts' names.
        rank: this rank's number in the group over which the experts are spread.
        ranks: the group.
        local: how many experts a rank has.
    """

    place: str
    rank: int
    ranks: list[int]
    local: int


def numbered(
    model: nn.Module, named: Iterable[tuple[str, ModelTensor]]
) -> Iterator[tuple[str, ModelTensor]]:
    """Give experts their numbers among all, and add those that other ranks hold.

    Args:
        model: the unwrapped model.
        named: its tensors by their names in memory, in state-dict order.

    Raises:
        WeightsError: the experts are spread in a way that has no names.
    """
    layers = list(_layers(model))
    if not layers:
        yield from named
        return
    model_tensors = dict(named)
    done: set[str] = set()
    for name, model_tensor in model_tensors.items():
        layer = next((one for one in layers if name.startswith(one.place)), None)
        if layer is None:
            yield name, model_tensor
        elif layer.place not in done:
            done.add(layer.place)
            yield from _experts(layer, model_tensors)


def _layers(model: nn.Module) -> Iterator[_Layer]:
    for name, module in named_modules(model):
        if is_a(module, "AutoEPMoELayer") and getattr(module, "ep_size", 1) > 1:
            raise WeightsError(
                f"'{name}': expected whole layers of experts, found experts that DeepSpeed's "
                "AutoEP spread over the ranks, which is not supported; save a checkpoint by "
                "DeepSpeed and convert it"
            )
        layer: Any = module
        if not is_a(module, "MOELayer") or layer.ep_size == 1:
            continue
        if layer.ep_group is None:
            raise WeightsError(
                f"'{name}': expected experts spread over a group of ranks, found no group for "
                f"ep_size {layer.ep_size}; call deepspeed.initialize or set_deepspeed_parallelism"
            )
        ranks = dist.get_process_group_ranks(layer.ep_group)
        place = f"{name}.experts.deepspeed_experts." if name else "experts.deepspeed_experts."
        yield _Layer(place, dist.get_rank(layer.ep_group), ranks, layer.num_local_experts)


def _experts(
    layer: _Layer, model_tensors: dict[str, ModelTensor]
) -> Iterator[tuple[str, ModelTensor]]:
    """All experts of a layer, in order of their numbers."""
    inside = [pair for pair in model_tensors.items() if pair[0].startswith(layer.place)]
    for number in range(layer.local * len(layer.ranks)):
        owner, local = divmod(number, layer.local)
        here = f"{layer.place}{local}."
        for name, model_tensor in inside:
            if name.startswith(here):
                full = f"{layer.place}{number}.{name.removeprefix(here)}"
                yield full, _placed(model_tensor, layer, owner, number)


def _placed(model_tensor: ModelTensor, layer: _Layer, owner: int, number: int) -> ModelTensor:
    if owner != layer.rank:
        # The experts of a layer are copies of one module: only shape and dtype are taken.
        return replace(
            model_tensor, identity=(model_tensor.identity, number), slices=(), replica=None
        )
    if model_tensor.replica is None:
        return model_tensor
    # With several groups each holds all experts; the one with rank 0 writes.
    slices = (model_tensor.replica.local_slice,) if 0 in layer.ranks else ()
    several = len(layer.ranks) < dist.get_world_size()
    part = f"experts {owner} of {len(layer.ranks)}"
    replica = replace(model_tensor.replica, part=part) if several else None
    return replace(model_tensor, slices=slices, replica=replica)
