"""What several ranks are said to hold alike."""

from __future__ import annotations

from dataclasses import dataclass

from canonical_saver.weights.tensors import LocalSlice


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
