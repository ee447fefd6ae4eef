"""The tensors of a layout that no rank holds in the form of the file, in groups."""

from __future__ import annotations

from collections.abc import Sequence

from canonical_saver.formats.layout import File, PlacedTensor


def groups_to_compute(files: Sequence[File]) -> list[list[tuple[int, PlacedTensor]]]:
    """Group the tensors that must be computed so that no two groups need one model tensor."""
    leader: dict[str, str] = {}

    def find(name: str) -> str:
        while leader.setdefault(name, name) != name:
            leader[name] = leader[leader[name]]
            name = leader[name]
        return name

    computed = [
        (number, placed)
        for number, file in enumerate(files)
        for placed in file.tensors
        if placed.saved.source_ranges is None
    ]
    for _, placed in computed:
        first, *others = sorted(placed.saved.needs)
        for other in others:
            leader[find(other)] = find(first)
    groups: dict[str, list[tuple[int, PlacedTensor]]] = {}
    for number, placed in computed:
        groups.setdefault(find(min(placed.saved.needs)), []).append((number, placed))
    return list(groups.values())


def chosen(turn: int, shares_folder: Sequence[bool]) -> int:
    """The rank that computes a group.

    Args:
        turn: the number of the group.
        shares_folder: for each rank, whether it sees the folder.
    """
    seeing = [rank for rank, shares in enumerate(shares_folder) if shares]
    return seeing[turn % len(seeing)]
