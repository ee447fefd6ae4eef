"""Which check looks at a folder of unknown origin for which clause.

A clause whose check needs no knowledge of the training (``structural``) is checked in a folder as
in a run. Where a run knows more than a folder tells, the clause has a second, more careful check
here: it accuses only where a usual loader (``transformers``, ``peft``, ``safetensors``,
``huggingface_hub``) loses something whatever was trained. The rest is a remark, or is left unsaid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from saver_conformance import checks
from saver_conformance.folder_check.folder import Folder
from saver_conformance.observation.finding import Defect, Finding
from saver_conformance.spec import SPEC


@dataclass(frozen=True, slots=True)
class Remark:
    """Something that a reader of the report may want to know, and that is no defect.

    Attributes:
        text: what it is.
        file: the file that it is about, below the checked folder.
        tensor: the tensor that it is about.
    """

    text: str
    file: str | None = None
    tensor: str | None = None


FolderCheckFunction = Callable[[Folder], Iterator[Defect | Remark]]


@dataclass(frozen=True, slots=True)
class FolderCheck:
    """The check of one clause in a folder.

    Attributes:
        clause: the clause's id.
        function: yields a defect for every place that breaks the clause, and remarks.
        reads_weights: whether there must be safetensors weights for the clause to demand something.
    """

    clause: str
    function: FolderCheckFunction
    reads_weights: bool

    def applies_to(self, folder: Folder) -> bool:
        """Whether the clause demands something of ``folder``."""
        return folder.case.mode.matches(SPEC[self.clause].modes) and (
            folder.has_weights or not self.reads_weights
        )

    def find(self, folder: Folder) -> Iterator[Finding | Remark]:
        """The findings of the clause in ``folder``, and remarks.

        Raises:
            BlockedError: the check cannot be made.
        """
        for item in self.function(folder):
            yield item if isinstance(item, Remark) else item.finding(self.clause, folder.case)


_CHECKS: dict[str, FolderCheck] = {}


def folder_check(
    clause: str, *, reads_weights: bool | None = None
) -> Callable[[FolderCheckFunction], FolderCheckFunction]:
    """Register the decorated function as the check of ``clause`` in a folder.

    Raises:
        ValueError: there is no such clause, or it has such a check already.
    """

    def register(function: FolderCheckFunction) -> FolderCheckFunction:
        if clause not in SPEC:
            raise ValueError(f"{function.__name__}: the spec has no clause {clause}")
        if clause in _CHECKS or clause in _shared():
            raise ValueError(f"{clause} has two checks of folders")
        reads = _is_about_weights(clause) if reads_weights is None else reads_weights
        _CHECKS[clause] = FolderCheck(clause, function, reads)
        return function

    return register


def folder_checks() -> tuple[FolderCheck, ...]:
    """All checks of folders, in the order of the spec."""
    found = {**_shared(), **_CHECKS}
    return tuple(found[clause] for clause in SPEC if clause in found)


def _shared() -> dict[str, FolderCheck]:
    """The checks of a run that need no knowledge of the training."""
    return {
        item.clause: FolderCheck(item.clause, item.function, _is_about_weights(item.clause))
        for item in checks.checks()
        if item.structural
    }


def _is_about_weights(clause: str) -> bool:
    return SPEC[clause].area in ("FORMAT", "TENSOR")
