"""Saves from which not every rank returned: how they ended, and where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from saver_conformance.cases.case import Case
from saver_conformance.observation.observation import RankOutcome

Kind = Literal["died", "hung", "raised"]
KINDS: tuple[Kind, ...] = ("died", "hung", "raised")
"""The ways to fail, the costliest first: a rank that raised alone leaves the others hanging."""
CLAUSES: Mapping[Kind, str] = {"hung": "RANKS-001", "raised": "RANKS-002", "died": "RANKS-003"}
"""The clause that each way to fail breaks."""


@dataclass(frozen=True, slots=True)
class FailedSave:
    """A save from which not every rank returned.

    Attributes:
        case: what was saved; for a case that comes after others, the save that failed.
        kind: the costliest end among the ranks.
        exception: type of what was raised first, or how a process ended; empty when all ranks
            that failed hang.
        place: the saver's own innermost frame when it was raised, as ``file:line in function``;
            empty when nothing was raised.
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
        return FailedSave(case, "died", first.end, clauses=clauses)
    raised = [outcome for outcome in outcomes if outcome.status == "raised"]
    if not raised:
        return FailedSave(case, "hung", clauses=clauses)
    # What was raised first is the cause; the other ranks often only lose their connection.
    first = min(raised, key=lambda outcome: (outcome.seconds, outcome.rank))
    exception, _, message = first.end.partition(": ")
    return FailedSave(case, kinds[0], exception, first.place, message, clauses)
