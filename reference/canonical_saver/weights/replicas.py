"""Whether ranks that are said to hold the same bytes do, before one of them writes for all.

Every rank digests what others are said to hold as well, and the digests are compared. A difference
is an error, since each rank may have experts, layers or parts of tensors that no other has. It is
only a warning, and the values of the rank that writes are saved, where it can be nothing but copies
that drifted apart in training:

- a buffer of at most one dimension: statistics and counters, which ranks keep for themselves;
- a tensor that DDP, or DeepSpeed below ZeRO-3, made equal on all ranks and trains with a gradient
  of all ranks;
- floating-point numbers that are no further apart than neighbours in bfloat16 (0.8 %).

Whatever its values, a tensor is no copy if its shape is that of a part of what the model's
configuration asks for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from canonical_saver.collectives import Ranks
from canonical_saver.errors import VerifyError
from canonical_saver.weights import config_shapes, drift
from canonical_saver.weights.digests import digests
from canonical_saver.weights.saved_tensors import WeightSet
from canonical_saver.weights.tensors import LocalSlice, ModelTensor

MOST_SAMPLED = 1000
"""Differing tensors whose values are compared, spread evenly over all of them."""

MOST_RANKS = 8
"""Ranks that a message lists."""

Summary = dict[str, bytes]
"""For each part of tensors that a rank holds and others are said to hold too, a digest of it."""

_WRITES, _BUFFER, _SYNCHRONIZED = 1, 2, 4


@dataclass(frozen=True)
class Difference:
    """A tensor of which some ranks hold other bytes than the one that writes it.

    Attributes:
        number: of the tensor.
        writer: the rank whose bytes would be saved.
        others: the ranks that differ from it.
        buffer: it is a buffer.
        synchronized: on all of these ranks an engine vouches for it.
    """

    number: int
    writer: int
    others: tuple[int, ...]
    buffer: bool
    synchronized: bool


@dataclass(frozen=True)
class Judged:
    """What a difference means.

    Attributes:
        difference: the difference.
        name: of the tensor.
        shape: of the tensor.
        whole: the shape by the configuration, where the tensor has that of a part of it.
        distance: relative distance to the farthest of the ranks that differ.
    """

    difference: Difference
    name: str
    shape: tuple[int, ...]
    whole: tuple[int, ...] | None
    distance: float

    @property
    def counts(self) -> bool:
        """Whether it is a buffer that each rank keeps for itself."""
        return self.difference.buffer and len(self.shape) <= 1 and self.whole is None

    @property
    def drifted(self) -> bool:
        """Whether it can be nothing but copies that drifted apart."""
        close = self.difference.synchronized or self.distance <= drift.CLOSE
        return self.counts or (close and self.whole is None)


class Replicas:
    """What this rank holds of tensors that others are said to hold as well, and its digests.

    Args:
        weight_sets: what is to be saved.
        digest: digests slices; by default all of their bytes.
    """

    def __init__(
        self,
        weight_sets: Sequence[WeightSet],
        digest: Callable[[Sequence[LocalSlice]], Sequence[int]] = digests,
    ) -> None:
        self._tensors = _tensors(weight_sets)
        self._held = {
            number: replica
            for number, (_, model_tensor) in enumerate(self._tensors)
            if (replica := model_tensor.replica) is not None
        }
        found = digest([replica.local_slice for replica in self._held.values()])
        self._digests = dict(zip(self._held, found, strict=True))

    def summary(self) -> Summary:
        """What is compared first: a few bytes, however many tensors there are."""
        hashes: dict[str, Any] = {}
        for number, replica in self._held.items():
            line = f"{number} {self._digests[number]}\n".encode()
            hashes.setdefault(replica.part, hashlib.sha256()).update(line)
        return {part: made.digest() for part, made in hashes.items()}

    def compare(self, parts: Sequence[str], model: Any, ranks: Ranks) -> list[str]:
        """Find out what it means that ranks do not hold what they are said to hold; collective.

        Args:
            parts: the parts whose summaries differ.
            model: the unwrapped model.
            ranks: the ranks of the save.

        Returns:
            Warnings about copies that drifted apart.

        Raises:
            VerifyError: the same on every rank; ranks may hold something of their own.
        """
        tables = ranks.exchange("compare replicas", lambda: self._table(parts))
        differences = _differences(tables)
        if not differences:
            return []
        sampled = differences[:: -(-len(differences) // MOST_SAMPLED)]
        names = [self._tensors[one.number][0] for one in differences]
        told = ranks.exchange(
            "compare replicas",
            lambda: (
                self._samples(sampled),
                config_shapes.expected(model, names) if ranks.rank == 0 else {},
            ),
        )
        judged = self._judge(differences, told)
        lost = [one for one in judged if not one.drifted]
        if lost:
            raise VerifyError(_error(lost, len(self._tensors)))
        return _warnings(judged)

    def _samples(self, differences: Sequence[Difference]) -> dict[int, torch.Tensor | None]:
        return {
            one.number: drift.sample(self._held[one.number].local_slice)
            for one in differences
            if one.number in self._held
        }

    def _table(self, parts: Sequence[str]) -> torch.Tensor:
        """The digests of some parts: int64 of shape ``[tensors, 4]``.

        A row has the number of the tensor, the number of the part, the digest, and flags.
        """
        rows = []
        for number, replica in self._held.items():
            if replica.part in parts:
                flags = _WRITES * bool(self._tensors[number][1].slices)
                flags += _BUFFER * replica.buffer + _SYNCHRONIZED * replica.synchronized
                rows.append((number, parts.index(replica.part), self._digests[number], flags))
        return torch.tensor(rows, dtype=torch.int64).reshape(-1, 4)

    def _judge(self, differences: Sequence[Difference], told: Sequence[Any]) -> list[Judged]:
        samples: list[dict[int, torch.Tensor | None]] = [of_rank for of_rank, _ in told]
        shapes: dict[str, tuple[int, ...]] = told[0][1]
        judged = []
        for one in differences:
            name, model_tensor = self._tensors[one.number]
            whole = shapes.get(name)
            if whole is not None and not config_shapes.is_part(
                model_tensor.shape, whole, len(told)
            ):
                whole = None
            apart = 0.0
            if one.number in samples[one.writer]:
                mine = samples[one.writer][one.number]
                apart = max(drift.distance(mine, samples[rank][one.number]) for rank in one.others)
            judged.append(Judged(one, name, model_tensor.shape, whole, apart))
        return judged


def _tensors(weight_sets: Sequence[WeightSet]) -> list[tuple[str, ModelTensor]]:
    """The tensors that a save is made of, each once, by their names in memory where known."""
    found: dict[int, tuple[str, ModelTensor]] = {}
    for weights in weight_sets:
        place = f"{weights.folder}/" if weights.folder else ""
        named = list(weights.model_tensors.items())
        named += [
            (e.name, source_range.model_tensor)
            for e in weights.saved_tensors
            for source_range in e.source_ranges or ()
        ]
        for name, model_tensor in named:
            found.setdefault(id(model_tensor), (place + name, model_tensor))
    return list(found.values())


def _differences(tables: Sequence[torch.Tensor]) -> list[Difference]:
    """Find the tensors of which ranks with the same part hold other bytes than its writer."""
    holders: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
    for rank, table in enumerate(tables):
        for number, part, digest, flags in table.tolist():
            holders.setdefault((number, part), []).append((rank, digest, flags))
    found = []
    for (number, _), held in sorted(holders.items()):
        writer, right, _ = next((one for one in held if one[2] & _WRITES), held[0])
        others = [rank for rank, digest, _ in held if digest != right]
        if others:
            buffer, synchronized = (
                all(flags & flag for *_, flags in held) for flag in (_BUFFER, _SYNCHRONIZED)
            )
            found.append(Difference(number, writer, tuple(others), buffer, synchronized))
    return found


def _error(lost: Sequence[Judged], count: int) -> str:
    first = next((one for one in lost if one.whole is not None), lost[0])
    one = first.difference
    text = (
        f"'{first.name}': expected the bytes of rank {one.writer} on all ranks that hold it, found "
        f"others on {_listed(one.others)} ({_count(lost)} of {count} tensors differ like this)"
    )
    if first.whole is not None:
        text += (
            f"; its shape is {first.shape}, the model's configuration asks for {first.whole}: it "
            "seems to be a part (tensor parallelism without DTensor)"
        )
    return (
        f"{text}. If every rank holds experts, layers or parts of tensors of its own (expert, "
        "pipeline or tensor parallelism without DTensor), put the model together before the save. "
        "If these are copies that drifted apart, pass the model with the wrapper of DDP or "
        "DeepSpeed that trains it, or set check_replicas=False (in cfg: save_check_replicas), "
        f"which saves those of rank {one.writer}"
    )


def _warnings(judged: Sequence[Judged]) -> list[str]:
    texts = []
    counters = [one for one in judged if one.counts]
    if counters:
        first = counters[0]
        texts.append(
            f"{_count(counters)} buffers differ between the ranks, first '{first.name}' on "
            f"{_listed(first.difference.others)}; those of rank {first.difference.writer} are saved"
        )
    copies = [one for one in judged if not one.counts]
    if copies:
        first = max(copies, key=lambda one: one.distance)
        texts.append(
            f"{_count(copies)} tensors have drifted apart between the ranks, most of all "
            f"'{first.name}' on {_listed(first.difference.others)} (relative distance "
            f"{first.distance:.1e}); those of rank {first.difference.writer} are saved. Are their "
            "gradients reduced over all ranks?"
        )
    return texts


def _count(judged: Sequence[Judged]) -> int:
    """How many tensors; one may differ in several parts."""
    return len({one.difference.number for one in judged})


def _listed(ranks: Sequence[int]) -> str:
    """Some ranks in words."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    shown = ", ".join(map(str, ranks[:MOST_RANKS]))
    return f"ranks {shown}" + (" and others" if len(ranks) > MOST_RANKS else "")
