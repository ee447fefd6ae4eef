"""A clause in one mode as the outcome of a test, for pytest and JUnit.

What is a failure on the command line is a failure or an error here, and nothing else is. A
deviation, a waived clause, and one that was not tried or is not claimed are skipped with a reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from saver_conformance.reports.plain_text import evidence_text
from saver_conformance.reports.result import Result, Row
from saver_conformance.reports.status import MEANINGS, WORDS, CellStatus
from saver_conformance.safe_text import count
from saver_conformance.verdict.verdict import UNCHECKED


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a test of a clause in a mode comes to.

    Attributes:
        kind: ``passed``, ``failed``, ``error`` (which fails, too, and accuses nobody) or
            ``skipped``.
        status: of the clause in the mode.
        message: the status in words, with its reason.
        details: the finding of the simplest case, and how many there are; empty without one.
    """

    kind: Literal["passed", "failed", "error", "skipped"]
    status: CellStatus
    message: str
    details: str


def outcome_of(result: Result, clause: str, mode: str) -> Outcome:
    """The outcome of the test of ``clause`` in ``mode``."""
    rows = [row for row in result.rows if (row.clause, row.mode) == (clause, mode)]
    status: CellStatus = rows[0].status if rows else "not tried"
    why = _why(rows[0]) if rows else ""
    return Outcome(
        kind=_kind(status, result.clauses[clause].level if clause in result.clauses else "MAY"),
        status=status,
        message=f"{WORDS[status]}: {why or MEANINGS[status]}",
        details=_details(rows[0]) if rows else "",
    )


def _kind(status: CellStatus, level: str) -> Literal["passed", "failed", "error", "skipped"]:
    if status == "pass":
        return "passed"
    if status == "fail":
        return "failed"
    return "error" if status in ("unavailable", "error") and level == "MUST" else "skipped"


def _why(row: Row) -> str:
    if row.status == "deviation" and row.evidence is not None:
        return row.evidence.found
    return row.reason.removeprefix(UNCHECKED)


def _details(row: Row) -> str:
    if row.evidence is None:
        return ""
    more = f"\nin all:   {count(row.findings, 'finding')}" if row.findings > 1 else ""
    return f"{evidence_text(row.evidence)}{more}"
