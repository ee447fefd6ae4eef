"""What a rank holds of a tensor and other ranks are said to hold too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from canonical_saver.weights.tensors import LocalSlice, ModelTensor


@dataclass(frozen=True, eq=False)
class Replica:
    """Elements of a tensor that other ranks are said to hold as well.

    Attributes:
        part: which elements, in words that are the same on every rank that is said to hold them,
            and on no other.
        local_slice: the elements as they lie here, whether this rank writes them or another one.
        buffer: the tensor is a buffer.
        synchronized: the engine made the replicas equal when it took the model over, and reduces
            the gradients over all of them, so that they cannot be parts of something larger.
    """

    part: str
    local_slice: LocalSlice
    buffer: bool = False
    synchronized: bool = False


@dataclass(frozen=True, eq=False)
class ScatteredReplica(Replica):
    """A replica whose elements do not follow each other in the tensor that it is a part of.

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
