"""Files of a tokenizer or processor that have the names of files of the model."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from canonical_saver.publishing.best_effort import BestEffort

_OF_WEIGHTS = re.compile(
    r"(adapter_model|pytorch_model|model)\b.*\.(safetensors|bin|json)|.*\.distcp|\.metadata"
)


def without_taken(names: Sequence[str], staged: BestEffort, owner: str) -> list[str]:
    """Leave out the files that the model itself has, and warn of them.

    Args:
        names: of the files that were written.
        staged: where they are to go.
        owner: who wrote them.
    """
    taken = [
        name
        for name in names
        if _OF_WEIGHTS.fullmatch(name) or os.path.lexists(staged.folder / name)
    ]
    if taken:
        were, these = ("was", "this name") if len(taken) == 1 else ("were", "these names")
        staged.warnings.append(
            f"{', '.join(taken)} of {owner} {were} left out: the model has files of {these}; save "
            f"{owner} to a folder of its own too if it needs them"
        )
    return [name for name in names if name not in taken]
