"""Parts of a result as lines of text, for the terminal, pytest, JUnit and summaries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from saver_conformance.reports.result import Evidence, Failure, Result
from saver_conformance.safe_text import count
from saver_conformance.verdict.verdict import UNCHECKED

INDENT = 10
"""Columns of the labels of evidence."""
SHOWN_MESSAGES = 4
"""Messages of one exception at one place that are shown."""

_HEADINGS = {
    "died": "A rank died",
    "raised": "A rank raised an exception",
    "hung": "A rank hung",
}


@dataclass(frozen=True, slots=True)
class Unchecked:
    """Clauses that were not checked for one reason.

    Attributes:
        reason: why.
        clauses: their ids, in the order of the spec.
        modes: the modes in which they were not checked.
    """

    reason: str
    clauses: tuple[str, ...]
    modes: tuple[str, ...]


def evidence_parts(evidence: Evidence) -> Iterator[tuple[str, str]]:
    """What is known of a finding, as pairs of label and text of one line or several."""
    places = ", ".join(f"{name} {value}" for name, value in evidence.where)
    yield "where", places or "the folder"
    if evidence.case:
        yield "case", "\n".join(evidence.case)
    yield "expected", evidence.expected
    yield "found", evidence.found
    if evidence.replay:
        yield "replay", evidence.replay


def evidence_text(evidence: Evidence) -> str:
    """The parts of ``evidence`` below each other, labels in a column of their own."""
    lines = []
    for label, text in evidence_parts(evidence):
        first, *rest = text.splitlines() or [""]
        lines += [f"{label + ':':{INDENT}}{first}", *(f"{'':{INDENT}}{line}" for line in rest)]
    return "\n".join(lines)


def clause_heading(clause: str, level: str, text: str) -> str:
    """A clause, as a heading above what breaks it."""
    return f"{clause} ({level}) {text}"


def told_failures(result: Result) -> tuple[Failure, ...]:
    """The failures that are not waived."""
    failing = {(row.clause, row.mode) for row in result.rows if row.status == "fail"}
    return tuple(
        item
        for item in result.failures
        if any((clause, mode) in failing for clause in item.clauses for mode in item.modes)
    )


def failure_lines(result: Result, failure: Failure) -> Iterator[str]:
    """How ranks ended, where, in how many cases, and what was not checked because of it."""
    yield failure.messages[0]
    for message in failure.messages[1:SHOWN_MESSAGES]:
        yield f"also: {message}"
    if rest := failure.messages[SHOWN_MESSAGES:]:
        yield f"also: {count(len(rest), 'other message')}"
    if failure.place:
        yield f"at {failure.place}"
    yield f"in {count(failure.cases, 'case')} of {', '.join(failure.modes)}"
    yield from failure.when
    clauses = {row.clause for row in result.rows if row.reason in failure.ends and not row.findings}
    if clauses:
        yield f"unchecked because of it: {count(len(clauses), 'clause')}"


def failure_heading(failure: Failure) -> str:
    """What became of the save, as a heading."""
    return f"{_HEADINGS[failure.kind]} ({', '.join(failure.clauses)})"


def unchanged_text(result: Result) -> str:
    """In how many cases the save did nothing, as a sentence; empty when in none."""
    if result.unchanged is None:
        return ""
    cases = count(result.unchanged.cases, "case")
    return (
        f"The save changed no file in the output folder in {cases} of "
        f"{', '.join(result.unchanged.modes)}."
    )


def unchecked(result: Result) -> tuple[Unchecked, ...]:
    """Why clauses were not checked in cases that were run, each reason once.

    Reasons that the result's failures give are left out: they are told there.
    """
    told = frozenset(end for failure in result.failures for end in failure.ends)
    by_reason: dict[str, list[tuple[str, str]]] = {}
    for row in result.rows:
        if row.reason.startswith(UNCHECKED) and row.reason not in told:
            reason = row.reason.removeprefix(UNCHECKED)
            by_reason.setdefault(reason, []).append((row.clause, row.mode))
    return tuple(
        Unchecked(
            reason,
            tuple(dict.fromkeys(clause for clause, _ in rows)),
            tuple(dict.fromkeys(mode for _, mode in rows)),
        )
        for reason, rows in by_reason.items()
    )


def clause_ranges(clauses: Iterable[str]) -> str:
    """Ids of clauses with those of consecutive numbers as one: ``CRASH-001 to CRASH-006``."""
    parts = []
    for _, run in groupby(enumerate(clauses), key=_origin):
        ids = [clause for _, clause in run]
        parts += [f"{ids[0]} to {ids[-1]}"] if len(ids) > 2 else ids
    return ", ".join(parts)


def _origin(numbered: tuple[int, str]) -> tuple[str, int]:
    """The same for clauses of one area whose numbers follow one another."""
    place, clause = numbered
    area, _, number = clause.partition("-")
    return area, int(number) - place
