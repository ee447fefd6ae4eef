"""DeepSpeed's tensor parallelism (AutoTP): layers that hold parts of weights in plain tensors.

Each parameter of such a layer carries a description of how it was cut, made for DeepSpeed's
universal checkpoints (``deepspeed/module_inject/layers.py``, ``deepspeed/checkpoint/affine.py``):
for each rank of the group its pieces, as arguments of ``torch.as_strided`` on both sides. What they
say is written as it says. DeepSpeed itself is never imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from canonical_saver.errors import WeightsError
from canonical_saver.weights.engines.deepspeed_classes import is_a
from canonical_saver.weights.engines.replica import ScatteredReplica
from canonical_saver.weights.tensors import LocalSlice, ModelTensor, whole

_DESCRIPTION = "ds_autotp_universal_checkpoint_meta"


def applies(module: nn.Module) -> bool:
    """Whether a module is a layer of which other ranks hold other parts."""
    if not is_a(module, "TensorParallel_Layer"):
        return False
    group: Any = module.mp_group
    return group is not None and dist.get_world_size(group) > 1


def model_tensor(module: Any, name: str, parameter: torch.Tensor) -> ModelTensor:
    """Describe a parameter of such a layer.

    Raises:
        WeightsError: how the parameter was cut is not known, or it is cut by ZeRO-3 as well.
    """
    what = f"'{module.name or type(module).__name__}.{name}'"
    if hasattr(parameter, "ds_id"):
        raise WeightsError(
            f"{what}: expected a tensor-parallel layer below ZeRO-3, found its parts partitioned "
            "again, which is not supported; save under ZeRO-1 or ZeRO-2"
        )
    description = _description(module, parameter, what)
    pieces = description["ranks"][module.tp_index]["pieces"]
    ranks = dist.get_process_group_ranks(module.mp_group)
    if all(len(piece["locations"]) == len(ranks) for piece in pieces):
        return whole(parameter)
    plain = parameter.detach()
    own = [piece for piece in pieces if piece["locations"][0] == module.tp_index]
    slices = _slices(own, plain) if 0 in ranks else ()
    replica = None
    if len(ranks) < dist.get_world_size():
        # Other groups hold the same; the one with rank 0 writes.
        part = f"tensor-parallel part {module.tp_index} of {len(ranks)}"
        local_slice = LocalSlice(0, plain.numel(), plain)
        replica = ScatteredReplica(part, local_slice, runs=partial(_slices, own, plain))
    shape = tuple(description["logical_shape"])
    return ModelTensor(id(parameter), plain.dtype, shape, slices, replica=replica)


def _slices(pieces: list[dict[str, Any]], plain: torch.Tensor) -> tuple[LocalSlice, ...]:
    return tuple(
        LocalSlice(start, length, plain, offset)
        for piece in pieces
        for start, offset, length in _stretches(piece)
    )


def _description(module: Any, parameter: torch.Tensor, what: str) -> dict[str, Any]:
    conversion = getattr(parameter, _DESCRIPTION, {}).get("conversion") or {}
    found: dict[str, Any] | None = conversion.get("affine_map")
    reason = ""
    if found is None:
        reason = conversion.get("unsupported_reason") or "none is known to this version of it"
    elif not _describes_its_cut(type(module)):
        reason = f"found that of the class which {type(module).__name__} is derived from"
    elif tuple(found["ranks"][module.tp_index]["shard_shape"]) != tuple(parameter.shape):
        reason = f"found one of {found['ranks'][module.tp_index]['shard_shape']} for a part of "
        reason += f"shape {tuple(parameter.shape)}"
    elif any(p.get("scale", 1) != 1 for p in found["ranks"][module.tp_index]["pieces"]):
        reason = "found one that scales the elements"
    if reason or found is None:
        raise WeightsError(
            f"{what}: expected DeepSpeed's description of how a tensor-parallel layer was cut, "
            f"{reason}; use a newer DeepSpeed (0.19), or gather the model before saving"
        )
    return found


def _describes_its_cut(kind: type) -> bool:
    """Whether no derived class cuts the layer in another way than the one that describes it."""
    order = kind.__mro__
    cuts = next((n for n, k in enumerate(order) if "_tp_partition" in vars(k)), -1)
    describes = next((n for n, k in enumerate(order) if "_mark_uc_metadata" in vars(k)), len(order))
    return describes <= cuts


def _stretches(piece: dict[str, Any]) -> Iterator[tuple[int, int, int]]:
    """Cut a piece into elements that follow each other in the whole tensor and in the part.

    Yields:
        First element in the whole tensor, first element in the part, how many.
    """
    (start, strides), (offset, local_strides) = piece["source"], piece["dest"]
    outer = [
        dimension
        for dimension in zip(piece["shape"], strides, local_strides, strict=True)
        if dimension[0] != 1
    ]
    length = 1
    while outer and outer[-1][1] == outer[-1][2] == length:
        length *= outer.pop()[0]
    if not length:
        return
    for numbers in product(*(range(size) for size, _, _ in outer)):
        steps = list(zip(numbers, outer, strict=True))
        first = start + sum(number * stride for number, (_, stride, _) in steps)
        yield first, offset + sum(number * stride for number, (_, _, stride) in steps), length
