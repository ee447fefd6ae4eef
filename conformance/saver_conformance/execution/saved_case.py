"""A case after its save, and what is kept of it until it is checked."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from saver_conformance.cases.case import Case
from saver_conformance.observation.checkpoints import Checkpoints
from saver_conformance.observation.file_operation import FileOperation
from saver_conformance.observation.file_trace import FileTrace
from saver_conformance.observation.observation import (
    ControlRun,
    Crashes,
    Entry,
    RankOutcome,
    is_refusal,
)
from saver_conformance.observation.process_diff import Change
from saver_conformance.verdict.failures import FailedSave, failure_of


@dataclass(frozen=True, slots=True)
class SavedCase:
    """A case after its save, not yet looked at.

    Attributes:
        case: the case.
        folder: its scratch folder.
        before: what lay in the output folder before the save.
        after: what lay there after it.
        outcomes: how the saver ended on each rank.
        started: when training began, on the monotonic clock.
        crashes: None when the case asks for none.
        changes: for each rank what the save changed in its process; None when a rank failed.
        control: None when the case asks for none, or when a rank failed.
        checkpoints: None when the case asks for none, or when a rank failed.
        untraced: why the ranks were not traced.
        operations: for each rank what it did to files.
        trace: what all of them did to files, if they were traced.
        memory: for each rank by how many bytes its memory grew at most; None where nobody looked.
        earlier: the save into the same folder before this one, if the case has one.
        used: whether it was made by ranks on which the saver had raised before; what it left on
            them may be what is seen.
    """

    case: Case
    folder: Path
    before: Mapping[str, Entry]
    after: Mapping[str, Entry]
    outcomes: tuple[RankOutcome, ...]
    started: float
    crashes: Crashes | None = None
    changes: tuple[tuple[Change, ...], ...] | None = None
    control: ControlRun | None = None
    checkpoints: Checkpoints | None = None
    untraced: str = ""
    operations: tuple[tuple[FileOperation, ...], ...] = ()
    trace: FileTrace | None = None
    memory: tuple[int, ...] | None = None
    earlier: SavedCase | None = None
    used: bool = False

    @property
    def failure(self) -> FailedSave | None:
        """How the save failed; None when every rank returned, or refused what it may refuse."""
        return None if self.refused else failure_of(self.case, self.outcomes)

    @property
    def refused(self) -> bool:
        """Whether the saver refused the case, as it may."""
        return is_refusal(self.case, self.outcomes, self.before, self.after)

    @property
    def is_doubtful(self) -> bool:
        """Whether this save or one before it was made by ranks on which the saver had raised."""
        return self.used or (self.earlier is not None and self.earlier.is_doubtful)

    def remove_files(self) -> None:
        """Remove what this save and those before it left."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.earlier is not None:
            self.earlier.remove_files()
