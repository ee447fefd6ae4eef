"""The audit of a folder on disk: what its structure tells without the training that it comes from.

Nothing in the folder is trusted: no link is followed, no name in a file is opened, no code is run,
and nothing is allocated by a number that a file states.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from saver_conformance import checks
from saver_conformance.case import Adapter, Case, Mode
from saver_conformance.checks.evidence import BlockedError, Evidence
from saver_conformance.disk.directory import (
    ADAPTER,
    ADAPTER_CONFIG,
    Layout,
    digest,
    layout_of,
    list_saved,
)
from saver_conformance.finding import Finding
from saver_conformance.observation import Entry, Expectation, Observation
from saver_conformance.spec import SPEC

KEPT_FINDINGS = 10
"""Findings of one clause that are kept; the others are counted, for an index can lie a lot."""

_FULL = Case(Mode("full", "single"))
_ADAPTER = Case(Mode("lora", "single"), adapter=Adapter())


@dataclass(slots=True)
class ClauseAudit:
    """What became of one clause.

    Attributes:
        findings: the first findings.
        count: the number of all findings.
        blocked: why the clause was not checked; empty when it was.
    """

    findings: list[Finding] = field(default_factory=list)
    count: int = 0
    blocked: str = ""


@dataclass(frozen=True, slots=True)
class Audit:
    """What the structure of a folder tells.

    Attributes:
        folder: the folder.
        layouts: the weight layouts that it holds.
        files: number of files that belong to a save.
        size: their bytes.
        clauses: what became of every structural clause, by id, in the order of the spec.
        digests: SHA-256 by weight file, where bytes were asked for.
    """

    folder: Path
    layouts: tuple[Layout, ...]
    files: int
    size: int
    clauses: Mapping[str, ClauseAudit]
    digests: Mapping[str, str]

    @property
    def is_clean(self) -> bool:
        """Whether every structural MUST was checked and holds; not that the save conforms."""
        return not any(
            SPEC[clause].level == "MUST" and (result.count or result.blocked)
            for clause, result in self.clauses.items()
        )


def audit(folder: Path, *, read_bytes: bool = False) -> Audit:
    """Look at the structure of ``folder``.

    Args:
        folder: the folder, of a whole model or of an adapter.
        read_bytes: whether the weight files are read to their end, and their digests taken.

    Raises:
        OSError: there is no such folder, or it cannot be listed.
    """
    entries = list_saved(folder)
    clauses: dict[str, ClauseAudit] = {}
    for case in _cases(entries):
        evidence = Evidence(_observe(case, folder, entries))
        for item in checks.checks():
            # Only FORMAT looks at the files of one kind of save; the rest would be said twice.
            told = item.clause in clauses and SPEC[item.clause].area != "FORMAT"
            if item.structural and case.mode.matches(SPEC[item.clause].modes) and not told:
                _check(item, evidence, clauses.setdefault(item.clause, ClauseAudit()))
    digests = dict(_read_bytes(folder, entries, clauses)) if read_bytes else {}
    files = [entry for entry in entries.values() if entry.kind == "file"]
    return Audit(
        folder=folder,
        layouts=tuple(dict.fromkeys(filter(None, map(layout_of, entries)))),
        files=len(files),
        size=sum(entry.size for entry in files),
        clauses={clause: clauses[clause] for clause in SPEC if clause in clauses},
        digests=digests,
    )


def _cases(entries: Mapping[str, Entry]) -> Iterator[Case]:
    """What the folder is taken for: a whole model, an adapter, or the one beside the other."""
    has_full = any(layout_of(path) in ("single", "sharded") for path in entries)
    is_adapter = ADAPTER in entries or (ADAPTER_CONFIG in entries and not has_full)
    if is_adapter:
        yield _ADAPTER
    if has_full or not is_adapter:
        yield _FULL


def _observe(case: Case, folder: Path, entries: Mapping[str, Entry]) -> Observation:
    """An observation of which only the folder is known."""
    return Observation(
        case=case,
        expected=Expectation(tensors={}),
        outcomes=(),
        folder=folder,
        before={},
        after=entries,
        umask=0,
        reload=None,
    )


def _check(item: checks.Check, evidence: Evidence, result: ClauseAudit) -> None:
    try:
        for finding in item.function(evidence):
            _add(result, finding)
    except BlockedError as reason:
        result.blocked = str(reason)


def _add(result: ClauseAudit, finding: Finding) -> None:
    result.count += 1
    if len(result.findings) < KEPT_FINDINGS:
        result.findings.append(finding)


def _read_bytes(
    folder: Path, entries: Mapping[str, Entry], clauses: dict[str, ClauseAudit]
) -> Iterator[tuple[str, str]]:
    for path, entry in entries.items():
        if layout_of(path) is None or entry.kind != "file":
            continue
        try:
            yield path, digest(folder / path)
        except OSError as error:
            case = _ADAPTER if path == ADAPTER else _FULL
            finding = Finding("FORMAT-001", "a readable file", str(error), case, file=path)
            _add(clauses.setdefault("FORMAT-001", ClauseAudit()), finding)
