"""Comparisons as data for ``json``."""

from __future__ import annotations

import math
from typing import Any

from saver_conformance.comparison.folder_diff import FolderDiff, PartDiff
from saver_conformance.comparison.tensor_change import Change
from saver_conformance.comparison.training_check import PartCheck, TrainingCheck
from saver_conformance.comparison.words import answer
from saver_conformance.folder_check.audit import Audit

VERSION = 1
"""Of the form of these data; it grows when a key goes or changes its meaning."""


def training_as_plain(check: TrainingCheck) -> dict[str, Any]:
    """The answer to "did my fine-tune get in?"."""
    return {
        "version": VERSION,
        "folder": str(check.folder),
        "base": str(check.base),
        "adapter": str(check.adapter) if check.adapter else None,
        "fine": check.is_fine,
        "answer": answer(check),
        "parts": [_part(part) for part in check.parts],
    }


def diff_as_plain(diff: FolderDiff) -> dict[str, Any]:
    """A comparison of two folders."""
    return {
        "version": VERSION,
        "first": str(diff.first),
        "second": str(diff.second),
        "formats": list(diff.formats),
        "same": diff.is_same,
        "only_first": list(diff.only_first),
        "only_second": list(diff.only_second),
        "parts": [_part_diff(part) for part in diff.parts],
    }


def audit_as_plain(audit: Audit) -> dict[str, Any]:
    """The structure of a folder."""
    return {
        "clean": audit.is_clean,
        "portability": [{"file": note.file, "note": note.text} for note in audit.portability],
        "clauses": {
            clause: {"findings": result.count, "not_checked": result.blocked or None}
            for clause, result in audit.clauses.items()
            if result.count or result.blocked
        },
    }


def _part(part: PartCheck) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "label": part.label,
        "kind": part.kind,
        "wrong": [_note(note.text, note.tensors) for note in part.notes if note.is_wrong],
        "notes": [_note(note.text, note.tensors) for note in part.notes if not note.is_wrong],
    }
    if part.model:
        plain |= {
            "equal": list(part.model.equal),
            "changed": {name: _change(change) for name, change in part.model.changed.items()},
            "absent": list(part.model.absent),
            "new": list(part.model.new),
            "tied": list(part.model.tied),
        }
    if part.merge:
        plain["targets"] = {
            name: {
                "outcome": check.outcome.name.lower(),
                "factor": check.factor,
                "rows": check.rows,
                "of_rows": check.of_rows,
                "wrong_elements": check.wrong,
                "largest_error": _number(check.largest),
            }
            for name, check in part.merge.targets.items()
        }
    return plain


def _part_diff(part: PartDiff) -> dict[str, Any]:
    return {
        "label": part.label,
        "tensors": part.tensors,
        "changed": {name: _change(change) for name, change in part.changed.items()},
        "only_first": list(part.only_first),
        "only_second": list(part.only_second),
        "tied": list(part.tied),
        "files": {
            file.file: {"count": file.count, "entries": list(file.entries)} for file in part.files
        },
        "not_compared": list(part.uncompared),
    }


def _note(text: str, tensors: tuple[str, ...]) -> dict[str, Any]:
    return {"text": text, "tensors": list(tensors)}


def _change(change: Change) -> dict[str, Any]:
    return {
        "dtypes": list(change.dtypes),
        "shapes": [list(shape) for shape in change.shapes],
        "elements": change.elements,
        "differing": change.differing,
        "share": change.share,
        "bits": change.bits,
        "first": change.first,
        "measured": change.measured,
        "norm": _number(change.norm),
        "norm_before": _number(change.before),
        "largest": _number(change.largest),
        "not_finite": change.not_finite,
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
