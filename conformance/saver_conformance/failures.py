"""Saves from which not every rank returned: how they ended, and where.

The first line of a traceback is another one for every case; its end is the same for one cause.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

from saver_conformance.case import Case
from saver_conformance.observation import RankOutcome

Kind = Literal["died", "hung", "raised"]
KINDS: tuple[Kind, ...] = ("died", "hung", "raised")
"""The ways to fail, the costliest first: a rank that raised alone leaves the others hanging."""
CLAUSES: Mapping[Kind, str] = {"hung": "RANKS-001", "raised": "RANKS-002", "died": "RANKS-003"}
"""The clause that each way to fail breaks."""

_FRAME = re.compile(r'^[ |+]*File "(?P<file>.+)", line (?P<line>\d+), in (?P<function>.+)$')
_ERROR = re.compile(r"^(?:[ |+]*\| )?(?P<type>[A-Za-z_][\w.]*)(?:: (?P<message>.*))?$")
_SHOWN_PARTS = 3
"""Parts of a file's path that are kept; enough to find it, and the same on every machine."""


@dataclass(frozen=True, slots=True)
class FailedSave:
    """A save from which not every rank returned.

    Attributes:
        case: what was saved; for a case that comes after others, the save that failed.
        kind: the costliest end among the ranks.
        exception: type of what was raised first, or how a process ended; empty when all ranks
            that failed hang.
        place: where it was raised, as ``file:line in function``; empty when nothing was raised.
        message: the first line of what was raised.
        clauses: ids of the clauses about ranks that the save breaks.
    """

    case: Case
    kind: Kind
    exception: str = ""
    place: str = ""
    message: str = ""
    clauses: tuple[str, ...] = ()

    @property
    def name(self) -> tuple[Kind, str, str]:
        """What failures of one cause have in common: kind, exception and place."""
        return self.kind, self.exception, self.place


def failure_of(case: Case, outcomes: Sequence[RankOutcome]) -> FailedSave | None:
    """How the save of ``case`` failed; None when every rank returned."""
    ends = {outcome.status for outcome in outcomes}
    kinds = [kind for kind in KINDS if kind in ends]
    if not kinds:
        return None
    clauses = tuple(sorted(CLAUSES[kind] for kind in kinds))
    if kinds[0] == "died":
        first = next(outcome for outcome in outcomes if outcome.status == "died")
        return FailedSave(case, "died", first.detail.partition("\n")[0], clauses=clauses)
    raised = [outcome for outcome in outcomes if outcome.status == "raised"]
    if not raised:
        return FailedSave(case, "hung", clauses=clauses)
    # What was raised first is the cause; the other ranks often only lose their connection.
    first = min(raised, key=lambda outcome: (outcome.seconds, outcome.rank))
    exception, place, message = read_traceback(first.detail)
    return FailedSave(case, kinds[0], exception, place, message, clauses)


def read_traceback(text: str) -> tuple[str, str, str]:
    """The type, the innermost place and the first line of the exception in a printed traceback.

    Of chained exceptions, those of the last: it is the one that left the function.
    """
    exception = place = message = ""
    for line in text.splitlines():
        if frame := _FRAME.match(line):
            place = f"{_shorten(frame['file'])}:{frame['line']} in {frame['function']}"
            exception = message = ""
        elif place and not exception and (error := _ERROR.match(line)):
            exception, message = error["type"], error["message"] or ""
    return exception, place, message


def _shorten(file: str) -> str:
    return "/".join(PurePath(file).parts[-_SHOWN_PARTS:])
