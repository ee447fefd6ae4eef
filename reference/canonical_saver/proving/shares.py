"""Which rank compares which bytes of what several ranks hold alike.

One rank writes them in a save. In a proof they all compare a share, as many bytes each, so that it
takes as long as a parallel read. What counts is still what the rank that writes holds: where the
share of another one differs from the folder, the one that writes compares the tensor itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace

from canonical_saver.formats.layout import File
from canonical_saver.weights.engines.replica import replica_slices
from canonical_saver.weights.replicas import Summary
from canonical_saver.weights.saved_tensors import WeightSet
from canonical_saver.weights.tensors import ModelTensor
from canonical_saver.writing.agreement import differing_parts
from canonical_saver.writing.write_items import WriteItem, write_items

Shared = Mapping[str, Sequence[int]]
"""The parts that are shared, and among which ranks."""


@dataclass(frozen=True)
class View:
    """What a rank has of a folder, and of what others hold as well.

    Attributes:
        shares_folder: it has the folder in its place too.
        replicas: digests of what others are said to hold as well, by parts.
        writes: the parts that it would write in a save.
    """

    shares_folder: bool
    replicas: Summary
    writes: frozenset[str]


@dataclass(frozen=True)
class Share:
    """What a rank compares.

    Attributes:
        items: all of it, in order of files and offsets.
        lent: those of ``items`` that another rank writes in a save.
    """

    items: Sequence[WriteItem]
    lent: Sequence[WriteItem]


def written_parts(weight_sets: Sequence[WeightSet]) -> frozenset[str]:
    """The parts of replicated tensors that this rank would write in a save."""
    return frozenset(
        source_range.model_tensor.replica.part
        for one in weight_sets
        for saved in one.saved_tensors
        for source_range in saved.source_ranges or ()
        if source_range.model_tensor.replica is not None and source_range.model_tensor.slices
    )


def shared_parts(views: Sequence[View]) -> Shared:
    """Find the parts that several ranks can compare; the same on every rank.

    Copies that have drifted apart are compared by the rank that writes, as are those of a rank that
    does not see the folder.

    Args:
        views: for each rank what it has.
    """
    summaries = [view.replicas for view in views]
    parts = {part for one in summaries for part in one} - set(differing_parts(summaries))
    found: dict[str, list[int]] = {}
    for part in parts:
        writers = [rank for rank, view in enumerate(views) if part in view.writes]
        able = [r for r, view in enumerate(views) if view.shares_folder and part in view.replicas]
        if len(writers) == 1 and writers[0] in able and len(able) > 1:
            found[part] = able
    return found


def share(files: Sequence[File], shared: Shared, rank: int, writes: Set[str]) -> Share:
    """Find what a rank compares; the shares of all ranks tile what they would write.

    Args:
        files: the layout.
        shared: the parts that are shared.
        rank: this rank.
        writes: the parts that it would write in a save.
    """
    mine = [part for part in shared if rank in shared[part]]
    items = write_items(files, lambda t: () if _part(t) in mine else t.slices)
    lent: list[WriteItem] = []
    for part in mine:
        able = shared[part]
        own = list(divided(_held(files, part), able.index(rank), len(able)))
        items += own
        lent += own if part not in writes else []
    items.sort(key=lambda item: (item.file, item.offset))
    return Share(items, lent)


def _held(files: Sequence[File], part: str) -> list[WriteItem]:
    """All of a part, which each rank that holds it could write."""
    return write_items(files, lambda t: replica_slices(t) if _part(t) == part else ())


def _part(model_tensor: ModelTensor) -> str | None:
    """The part that a tensor is held alike as; None for one that nobody else holds."""
    return model_tensor.replica.part if model_tensor.replica is not None else None


def divided(items: Sequence[WriteItem], number: int, count: int) -> Iterator[WriteItem]:
    """Yield a share of some items; all shares have as many bytes, up to an element.

    Args:
        items: what is shared, the same on all ranks that share it.
        number: which share.
        count: how many there are.
    """
    total = sum(item.size for item in items)
    first, last = (total * n // count for n in (number, number + 1))
    position = 0
    for item in items:
        start, stop = (_elements_before(item, edge - position) for edge in (first, last))
        position += item.size
        if start < stop:
            held = item.local_slice
            cut = replace(
                held, start=held.start + start, length=stop - start, offset=held.offset + start
            )
            yield replace(item, offset=item.offset + start * item.dtype.itemsize, local_slice=cut)


def _elements_before(item: WriteItem, edge: int) -> int:
    """How many elements of an item begin before a byte of it."""
    return min(max(-(-edge // item.dtype.itemsize), 0), item.local_slice.length)
