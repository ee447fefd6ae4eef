"""ZeRO-3: each parameter is flattened and cut into equal partitions, the last ones short or empty.

The layout is that of ``deepspeed/runtime/zero/partition_parameters.py``. ``ds_tensor`` is the
truth, also for small parameters that persist in full. DeepSpeed itself is never imported.
"""

from __future__ import annotations

from typing import Any

import torch.distributed as dist

from canonical_saver.errors import WeightsError
from canonical_saver.weights.engines.replica import Replica
from canonical_saver.weights.tensors import LocalSlice, ModelTensor


def model_tensor(parameter: Any) -> ModelTensor:
    """Describe a partitioned parameter.

    Raises:
        WeightsError: the partition is on disk or quantized, so its bytes are not here.
    """
    shape = tuple(parameter.ds_shape)
    partition = parameter.ds_tensor
    status = getattr(partition, "status", None)
    if getattr(status, "name", "AVAILABLE") != "AVAILABLE":
        raise WeightsError(
            f"expected the partition of a parameter of shape {shape} in memory, found it on disk "
            f"({status}); load it before saving"
        )
    if hasattr(partition, "ds_quant_scale"):
        raise WeightsError(
            f"expected the partition of a parameter of shape {shape} as it is, found it quantized "
            "by ZeRO; turn zero_quantized_weights off"
        )
    group = parameter.ds_process_group
    number, ranks = dist.get_rank(group), dist.get_process_group_ranks(group)
    start = partition.ds_numel * number
    # What lies behind the last element of the parameter is uninitialised memory.
    length = min(max(parameter.ds_numel - start, 0), partition.ds_numel)
    if not length:
        return ModelTensor(id(parameter), partition.dtype, shape, ())
    local_slice = LocalSlice(start, length, partition.detach())
    # With several partition groups (MiCS) each holds the whole; the first one writes.
    replica = None
    if len(ranks) < dist.get_world_size():
        replica = Replica(f"partition {number} of {len(ranks)}", local_slice)
    slices = (local_slice,) if ranks[0] == 0 else ()
    return ModelTensor(id(parameter), partition.dtype, shape, slices, replica=replica)
