"""A replica whose elements do not follow each other in the tensor that it is a part of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from canonical_saver.weights.tensors import LocalSlice, ModelTensor, Replica


@dataclass(frozen=True, eq=False)
class ScatteredReplica(Replica):
    """Elements that others are said to hold as well, and where they belong.

    Attributes:
        runs: finds them as slices of the logical tensor. Only the rank that writes them needs that
            for a save, so that it is computed on request.
    """

    runs: Callable[[], Sequence[LocalSlice]] = tuple


def replica_slices(model_tensor: ModelTensor) -> Sequence[LocalSlice]:
    """What this rank would write if it were the one that writes this part; () if it holds none."""
    replica = model_tensor.replica
    if replica is None or not replica.local_slice.length:
        return ()
    return replica.runs() if isinstance(replica, ScatteredReplica) else (replica.local_slice,)
