"""What a save changed on a rank, and in the output folder after its return: states compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

ABSENT = "(absent)"
"""Stands for the value of what is not there."""
OUTPUT = "output folder"
"""The area of what lies in the output folder; before is when the saver returned on the rank."""
BASE = "base model"
"""The area of the files that training started from."""
LIBRARIES = "library functions"
"""The area of functions and methods of imported modules."""


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is not as it was.

    Attributes:
        area: what it belongs to, such as ``weights`` or ``random``.
        name: which one.
        before: its value before the save.
        after: its value now.
    """

    area: str
    name: str
    before: str
    after: str


def changes(
    before: Mapping[str, Mapping[str, str]], after: Mapping[str, Mapping[str, str]]
) -> Iterator[Change]:
    """The differences between two fingerprints, each ``{area: {name: value}}``."""
    for area in before:
        old, new = before[area], after[area]
        for name in [*old, *(name for name in new if name not in old)]:
            values = old.get(name, ABSENT), new.get(name, ABSENT)
            if values[0] != values[1]:
                yield Change(area, name, *values)
