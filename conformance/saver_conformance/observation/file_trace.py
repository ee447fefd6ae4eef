"""What a traced save did to files, and what it left outside of the output folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from saver_conformance.observation.flushing import FileEvent


@dataclass(frozen=True, slots=True)
class FileTrace:
    """The trace of a save, all ranks together.

    Attributes:
        events: what was done to files, in order.
        left: paths outside of the output folder that the save made or opened for writing, and that
            are there at its end.
        copies: for each file among them that is not too large, a copy.
    """

    events: tuple[FileEvent, ...]
    left: tuple[str, ...] = ()
    copies: Mapping[str, Path] = field(default_factory=dict)
