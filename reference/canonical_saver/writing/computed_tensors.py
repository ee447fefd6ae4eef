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

    computed = computed_tensors(files)
    for _, placed in computed:
        first, *others = sorted(placed.saved.needs)
        for other in others:
            leader[find(other)] = find(first)
    groups: dict[str, list[tuple[int, PlacedTensor]]] = {}
    for number, placed in computed:
        groups.setdefault(find(min(placed.saved.needs)), []).append((number, placed))
    return list(groups.values())


def computed_tensors(files: Sequence[File]) -> list[tuple[int, PlacedTensor]]:
    """The tensors that must be computed, with the numbers of their files."""
    return [
        (number, placed)
        for number, file in enumerate(files)
        for placed in file.tensors
        if placed.saved.source_ranges is None
    ]
