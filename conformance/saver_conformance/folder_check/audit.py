"""The audit of a folder on disk: what its structure tells without the training that it comes from.

Nothing in the folder is trusted: no link is followed but those of a hub cache, no name in a file is
opened that does not lie in the folder itself, no code is run, and nothing is allocated by a number
that a file states.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from saver_conformance.checks.evidence import BlockedError
from saver_conformance.checks.registry import PORTABLE
from saver_conformance.folder.layout import Layout, digest, layout_of
from saver_conformance.folder_check import FolderCheck, Remark, folder_checks, parts_of
from saver_conformance.folder_check.folder import Folder
from saver_conformance.observation.finding import Finding
from saver_conformance.spec import SPEC

KEPT_FINDINGS = 10
"""Findings of one clause that are kept; the others are counted, for an index can lie a lot."""

KEPT_REMARKS = 50
"""Remarks that are kept; an index can name a million files."""


UNREADABLE = "FORMAT-001"
"""The clause that a file breaks whose bytes cannot be read."""


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
        digests: SHA-256 by weight file, where bytes were requested.
        remarks: what is worth knowing and no defect.
        portability: the same, of readers of other ages and other programs.
    """

    folder: Path
    layouts: tuple[Layout, ...]
    files: int
    size: int
    clauses: Mapping[str, ClauseAudit]
    digests: Mapping[str, str]
    remarks: tuple[Remark, ...] = ()
    portability: tuple[Remark, ...] = ()

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
        folder: the folder, of a whole model, of an adapter, or of several.
        read_bytes: whether the weight files are read to their end, and their digests taken.

    Raises:
        OSError: there is no such folder, or it cannot be listed.
    """
    parts = parts_of(folder)
    clauses: dict[str, ClauseAudit] = {}
    remarks: dict[Remark, None] = {}  # in their order; a folder can be taken for two things
    portability: dict[Remark, None] = {}
    for part in parts.folders:
        for item in folder_checks():
            if item.applies_to(part):
                is_portable = SPEC[item.clause].area == PORTABLE
                kept = portability if is_portable else remarks
                _check(item, part, clauses.setdefault(item.clause, ClauseAudit()), kept)
    for name in parts.skipped:
        _keep(remarks, Remark("weights of its own in this folder were not looked at", file=name))
    digests = dict(_read_bytes(parts.folders, clauses)) if read_bytes else {}
    files = {
        path: entry
        for part in parts.folders
        for path, entry in part.observation.after.items()
        if entry.kind == "file"
    }
    return Audit(
        folder=folder,
        layouts=tuple(
            dict.fromkeys(_layout(name) for part in parts.folders for name in part.own_files)
        ),
        files=len(files),
        size=sum(entry.size for entry in files.values()),
        clauses={clause: clauses[clause] for clause in SPEC if clause in clauses},
        digests=digests,
        remarks=tuple(remarks),
        portability=tuple(portability),
    )


def _layout(name: str) -> Layout:
    return layout_of(name) or "sharded"


def _check(
    item: FolderCheck, part: Folder, result: ClauseAudit, remarks: dict[Remark, None]
) -> None:
    try:
        for found in item.find(part):
            if isinstance(found, Remark):
                _keep(remarks, found)
            else:
                _add(result, found)
    except BlockedError as reason:
        result.blocked = str(reason)


def _keep(remarks: dict[Remark, None], remark: Remark) -> None:
    if len(remarks) < KEPT_REMARKS:
        remarks[remark] = None


def _add(result: ClauseAudit, finding: Finding) -> None:
    # What a model and the adapter next to it share is looked at twice.
    if any(replace(kept, case=finding.case) == finding for kept in result.findings):
        return
    result.count += 1
    if len(result.findings) < KEPT_FINDINGS:
        result.findings.append(finding)


def _read_bytes(
    parts: tuple[Folder, ...], clauses: dict[str, ClauseAudit]
) -> Iterator[tuple[str, str]]:
    for part in parts:
        for name, entry in part.listing.items():
            is_pickle = layout_of(name) == "pickle" and not part.is_adapter
            if entry.kind != "file" or not (is_pickle or name in part.own_files):
                continue
            try:
                yield part.path_of(name), digest(part.folder / name)
            except OSError as error:
                defect = part.defect("a readable file", str(error), file=name)
                result = clauses.setdefault(UNREADABLE, ClauseAudit())
                _add(result, defect.finding(UNREADABLE, part.case))
