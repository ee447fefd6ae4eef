"""A result in Markdown, for the summary of a CI job."""

from __future__ import annotations

from collections.abc import Iterator

from saver_conformance.reports.markdown import block, code, table
from saver_conformance.reports.plain_text import (
    clause_ranges,
    evidence_text,
    failure_heading,
    failure_lines,
    told_failures,
    unchanged_text,
    unchecked,
)
from saver_conformance.reports.result import Cause, Failure, Result
from saver_conformance.reports.status import WORDS, in_mode_and_area, sentence
from saver_conformance.safe_text import count

SHOWN_CAUSES = 8
"""Clauses that are told in full; a saver that breaks many breaks most for one reason."""


def render(result: Result) -> str:
    """The content of ``summary.md``."""
    return "\n\n".join(_parts(result)) + "\n"


def _parts(result: Result) -> Iterator[str]:
    yield f"## {code(result.saver)} {sentence(result)}"
    yield table(
        ["mode", *result.areas],
        ([mode, *(_cell(result, mode, area) for area in result.areas)] for mode in result.modes),
    )
    if text := unchanged_text(result):
        yield text
    failures = told_failures(result)
    for failure in failures[:SHOWN_CAUSES]:
        yield from _tell_failure(result, failure)
    told = {clause for item in failures for clause in item.clauses}
    broken = set(result.broken()) - told
    causes = [result.causes[clause] for clause in result.causes if clause in broken]
    for cause in causes[:SHOWN_CAUSES]:
        yield from _tell(result, cause)
    if rest := causes[SHOWN_CAUSES:]:
        yield f"Also broken, see the report: {', '.join(cause.clause for cause in rest)}"
    for reason in unchecked(result):
        where = f"{clause_ranges(reason.clauses)} in {', '.join(reason.modes)}"
        yield f"Unchecked: {where}, because of {code(reason.reason)}"
    for fault in result.waiver_faults:
        yield f"Wrong waiver: {code(fault)}"
    for item in result.not_run:
        yield f"{count(item.cases, 'case')} of {', '.join(item.modes)} not run ({item.status}):"
        yield block(item.reason)
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    shard = f", shard {result.shard}" if result.shard else ""
    yield (
        f"Profile {code(result.profile)}{shard}, "
        f"{result.executed} of {count(result.expected, 'case')} in {result.seconds:.0f} s, "
        f"{result.time}. {code(versions)}"
    )


def _cell(result: Result, mode: str, area: str) -> str:
    word = WORDS[status := in_mode_and_area(result, mode, area)]
    return f"**{word}**" if status == "fail" else word


def _tell(result: Result, cause: Cause) -> Iterator[str]:
    clause, example = result.clauses[cause.clause], cause.example
    modes = [row.mode for row in result.rows if row.clause == clause.id and row.status == "fail"]
    yield f"### {clause.id} ({clause.level}) {clause.title}"
    yield clause.text
    yield block(evidence_text(example))
    found = f"{count(cause.findings, 'finding')} in {count(cause.cases, 'case')}"
    yield f"{found} of {', '.join(modes)}"


def _tell_failure(result: Result, failure: Failure) -> Iterator[str]:
    yield f"### {failure_heading(failure)}"
    yield block("\n".join(failure_lines(result, failure)))
    if failure.example is not None:
        yield block(evidence_text(failure.example))
