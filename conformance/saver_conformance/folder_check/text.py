"""An audit as lines of text."""

from __future__ import annotations

from collections.abc import Iterator

from saver_conformance.folder_check.audit import Audit, ClauseAudit
from saver_conformance.safe_text import printable
from saver_conformance.spec import SPEC

SHOWN_FINDINGS = 3
"""Findings of one clause that are shown."""

SHOWN_REMARKS = 10
"""Remarks that are shown."""


def describe(audit: Audit) -> Iterator[str]:
    """The lines of a report on ``audit``: defects, notes, what was not checked, the conclusion."""
    layouts = ", ".join(audit.layouts) or "no weights"
    yield f"{printable(str(audit.folder))}: {layouts}; {audit.files} files, {audit.size} bytes"
    for path, digest in audit.digests.items():
        yield f"  sha256 {digest}  {printable(path)}"
    broken = {clause: result for clause, result in audit.clauses.items() if result.count}
    for clause in sorted(broken, key=lambda clause: SPEC[clause].level != "MUST"):
        yield from _describe_clause(clause, broken[clause])
    if audit.remarks:
        yield ""
    for remark in audit.remarks[:SHOWN_REMARKS]:
        yield f"note: {_where(remark.file, remark.tensor)}: {printable(remark.text)}"
    if len(audit.remarks) > SHOWN_REMARKS:
        yield f"note: ... {len(audit.remarks)} notes in all"
    blocked = {clause: result for clause, result in audit.clauses.items() if result.blocked}
    if blocked:
        yield ""
    for clause, result in blocked.items():
        yield f"{clause} was not checked: {printable(result.blocked)}"
    yield ""
    yield _conclude(audit)


def _describe_clause(clause: str, result: ClauseAudit) -> Iterator[str]:
    yield ""
    yield f"{clause} ({SPEC[clause].level}) {SPEC[clause].text}"
    for finding in result.findings[:SHOWN_FINDINGS]:
        yield f"  {_where(finding.file, finding.tensor, finding.offset)}"
        yield f"    expected: {printable(finding.expected)}"
        yield f"    found:    {printable(finding.found)}"
    if result.count > SHOWN_FINDINGS:
        yield f"  ... {result.count} findings in all"


def _where(file: str | None, tensor: str | None, offset: int | None = None) -> str:
    where = {"file": file, "tensor": tensor, "byte": offset}
    parts = [f"{name} {value}" for name, value in where.items() if value is not None]
    return printable(", ".join(parts)) or "the folder"


def _conclude(audit: Audit) -> str:
    if audit.is_clean and not audit.layouts:
        return "no defects found in what was looked at; no weights were read"
    if audit.is_clean:
        return (
            "no defects found in the structure; only a run can find out whether the model is right"
        )
    count = sum(
        SPEC[clause].level == "MUST" and bool(result.count)
        for clause, result in audit.clauses.items()
    )
    return f"defects in the structure: {count} MUSTs are broken"
