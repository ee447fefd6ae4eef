"""Which byte of which file belongs to which tensor: one module a format, behind one protocol.

Of the ``safetensors`` and ``torch`` formats every rank writes its own ranges in place. The ``dcp``
format is written by torch, and has no layout that could be known before.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from canonical_saver.formats.layout import File
from canonical_saver.request import Request
from canonical_saver.weights.saved_tensors import WeightSet

Archive = tuple[int, dict[str, int]]
"""Bytes of a file of the ``torch`` format, and the first byte of each tensor in it, by its name."""

_MODULES = {"safetensors": "safetensors", "torch": "torch_archive", "dcp": "dcp"}


class WeightFormat(Protocol):
    """What a format has to say; each module of a format says it by functions of these names."""

    def lay_out(self, weight_sets: Sequence[WeightSet], request: Request) -> list[File]:
        """Lay out all weight files of a save, as far as that is known before they are made."""

    def create(
        self, folder: Path, weight_sets: Sequence[WeightSet], files: Sequence[File]
    ) -> list[Archive]:
        """Make each file at its final size, with all but its tensors, and the indexes; on rank 0.

        Returns:
            Where the tensors lie, in a format in which that is not known before.
        """

    def finish(self, writer: Any) -> None:
        """Write what no rank can write as ranges of its own; collective.

        Args:
            writer: the :class:`canonical_saver.writing.writer.Writer` of the save.

        Raises:
            SaveError: the same on every rank, when it failed on any.
        """


def find_format(name: str) -> WeightFormat:
    """The format of a request; its module is imported when it is needed."""
    return cast(WeightFormat, import_module(f"{__name__}.{_MODULES[name]}"))
