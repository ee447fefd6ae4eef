"""An audit of a folder as lines of text, in the words of every other view."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from saver_conformance.folder_check import Remark
from saver_conformance.folder_check.audit import Audit, ClauseAudit
from saver_conformance.reports.plain_text import (
    INDENT,
    clause_heading,
    evidence_parts,
    evidence_text,
)
from saver_conformance.reports.result import evidence_of
from saver_conformance.reports.status import WORDS, musts_are
from saver_conformance.safe_text import count, printable
from saver_conformance.spec import SPEC

SHOWN_FINDINGS = 3
"""Findings of one clause that are shown."""

SHOWN_REMARKS = 10
"""Remarks that are shown."""


def describe(audit: Audit) -> Iterator[str]:
    """The lines of a report on ``audit``: defects, notes, what was not checked, the conclusion."""
    layouts = ", ".join(audit.layouts) or "no weights"
    size = f"{count(audit.files, 'file')}, {count(audit.size, 'byte')}"
    yield f"{printable(str(audit.folder))}: {layouts}; {size}"
    for path, digest in audit.digests.items():
        yield f"  sha256 {digest}  {printable(path)}"
    broken = {clause: result for clause, result in audit.clauses.items() if result.count}
    for clause in sorted(broken, key=lambda clause: SPEC[clause].level != "MUST"):
        yield from _describe_clause(clause, broken[clause])
    yield from _describe_remarks(audit.remarks)
    yield from _describe_remarks(audit.portability)
    blocked = {clause: result for clause, result in audit.clauses.items() if result.blocked}
    for clause, result in blocked.items():
        yield f"\n{WORDS['unavailable']}: {clause}"
        yield f"  {'because:':{INDENT}}{printable(result.blocked)}"
    yield ""
    yield _conclude(audit)


def _describe_clause(clause: str, result: ClauseAudit) -> Iterator[str]:
    yield ""
    yield clause_heading(clause, SPEC[clause].level, SPEC[clause].text)
    for finding in result.findings[:SHOWN_FINDINGS]:
        text = evidence_text(evidence_of(asdict(finding)))
        yield from (f"  {line}" for line in text.splitlines())
    if result.count > 1:
        yield f"  {'in all:':{INDENT}}{count(result.count, 'finding')}"


def _describe_remarks(remarks: Sequence[Remark]) -> Iterator[str]:
    if remarks:
        yield ""
    for remark in remarks[:SHOWN_REMARKS]:
        about = {"file": remark.file, "tensor": remark.tensor, "expected": "", "found": ""}
        where = dict(evidence_parts(evidence_of(about)))["where"]
        yield f"note: {where}: {printable(remark.text)}"
    if len(remarks) > SHOWN_REMARKS:
        yield f"note: ... {count(len(remarks), 'note')} in all"


def _conclude(audit: Audit) -> str:
    if audit.is_clean and not audit.layouts:
        return "no defects found in what was looked at; no weights were read"
    if audit.is_clean:
        return "no defects found in the structure; only a run can tell whether the model is right"
    musts = [result for clause, result in audit.clauses.items() if SPEC[clause].level == "MUST"]
    broken = sum(bool(result.count) for result in musts)
    unchecked = sum(bool(result.blocked) and not result.count for result in musts)
    parts = [musts_are(broken, "broken")] if broken else []
    parts += [musts_are(unchecked, WORDS["unavailable"])] if unchecked else []
    return f"{'defects in' if broken else 'no verdict on'} the structure: {', '.join(parts)}"
