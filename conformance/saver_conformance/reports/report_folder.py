"""The folder of a report: tried before the first case, and cleared of what an earlier run left.

It may be anybody's folder, so nothing is removed but files that an earlier report of this suite
lists and whose content is what that report says.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from saver_conformance.errors import ReportFolderError
from saver_conformance.folder.untrusted_json import UntrustedJsonError, parse_object

CASES_FOLDER = "cases"
"""Where the cases that showed something lie, one file each."""
SMALLEST_CASE_FILE = "smallest-case.json"
"""Where ``explore`` leaves the smallest failing case."""

_MODE = re.compile(r"[a-z0-9]+-[a-z0-9]+")


def prepare(folder: Path) -> None:
    """Make ``folder`` if it is not there, and try to write into it.

    Raises:
        ReportFolderError: it cannot be made or written to, or is no folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = "it is not a folder" if folder.is_file() else error.strerror or str(error)
        raise ReportFolderError(
            f"the report cannot be written to {folder}: {reason}; name a folder that can be"
        ) from error


def case_name(mode: str, text: str) -> str:
    """The path of a case's file below the folder; ``text`` is the case as JSON."""
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{CASES_FOLDER}/{mode}-{digest}.json"


def remove_earlier(folder: Path, report: Path, kept: Collection[str]) -> None:
    """Remove the case files that the report at ``report`` says that it has, except for ``kept``."""
    try:
        earlier = parse_object(report.read_bytes())
    except (OSError, UntrustedJsonError):
        return
    for name, text in _cases_of(earlier):
        path = folder / name
        if name in kept or path.is_symlink() or not path.is_file():
            continue
        if path.read_bytes() == f"{text}\n".encode():
            path.unlink()


def _cases_of(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The case files of a report, as path and content; nothing where it is none of ours."""
    if isinstance(smallest := report.get("smallest_case"), Mapping):
        yield SMALLEST_CASE_FILE, json.dumps(smallest)
    rows = report.get("clauses")
    for row in rows if isinstance(rows, list) else ():
        findings = row.get("findings") if isinstance(row, Mapping) else None
        for finding in findings if isinstance(findings, list) else ():
            case = finding.get("case") if isinstance(finding, Mapping) else None
            mode = case.get("mode") if isinstance(case, Mapping) else None
            if isinstance(mode, str) and _MODE.fullmatch(mode):
                text = json.dumps(case)
                yield case_name(mode, text), text
