"""Comparisons as lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from saver_conformance.comparison.folder_diff import FolderDiff, PartDiff
from saver_conformance.comparison.merge import Outcome
from saver_conformance.comparison.model_check import ModelCheck
from saver_conformance.comparison.tensor_change import Change
from saver_conformance.comparison.training_check import PartCheck, TrainingCheck
from saver_conformance.safe_text import count, printable

SHOWN = 20
"""Things of one kind that are named."""

SHOWN_CHANGES = 5
"""Tensors that a training changed that are named."""


def describe_training(check: TrainingCheck) -> Iterator[str]:
    """The lines of an answer to "did my fine-tune get in?"."""
    yield f"{printable(str(check.folder))} against its base {printable(str(check.base))}"
    for part in check.parts:
        yield from _part(part)
    yield ""
    yield f"did the fine-tune get in? {answer(check)}"


def answer(check: TrainingCheck) -> str:
    """The answer in a sentence."""
    wrong = [note for note in check.notes if note.is_wrong]
    if wrong:
        return f"no, something is wrong: {printable(wrong[0].text)}"
    models = [part.model for part in check.parts if part.model]
    changed = sum(len(model.changed) for model in models)
    if any(part.merge and part.merge.is_judged and part.merge.targets for part in check.parts):
        return "yes, the adapter was merged as it should be, and nothing else changed"
    if changed:
        total = changed + sum(len(model.equal) for model in models)
        return f"yes, {changed} of {count(total, 'tensor')} changed"
    if any(part.kind == "adapter" and not _is_unjudged(part) for part in check.parts):
        return "yes, the adapter fits the base, and it changes something"
    return "this cannot be told; see the notes"


def _is_unjudged(part: PartCheck) -> bool:
    return any(
        "not judged" in note.text or "nothing to compare" in note.text for note in part.notes
    )


def _part(part: PartCheck) -> Iterator[str]:
    yield ""
    yield f"{printable(part.label)}:"
    if part.model:
        yield from _model(part.model)
    if part.merge and part.merge.targets:
        checks = part.merge.targets.values()
        merged = sum(check.outcome in (Outcome.MERGED, Outcome.INVISIBLE) for check in checks)
        rows, of_rows = sum(c.rows for c in checks), sum(c.of_rows for c in checks)
        looked = "all rows" if rows == of_rows else f"{rows} of {of_rows} rows"
        total = count(len(part.merge.targets), "target")
        yield f"  {merged} of {total} of the adapter as expected ({looked} looked at)"
    if part.kind == "adapter" and not part.notes:
        yield "  names and shapes fit the base, and every factor holds values"
    for note in sorted(part.notes, key=lambda note: not note.is_wrong)[:SHOWN]:
        yield f"  {'WRONG' if note.is_wrong else 'note'}: {printable(note.text)}"
    if len(part.notes) > SHOWN:
        yield f"  ... {len(part.notes)} notes in all"


def _model(model: ModelCheck) -> Iterator[str]:
    cast = f", {model.cast} of them after a cast" if model.cast else ""
    yield f"  {count(len(model.equal), 'tensor')} equal the base's{cast}"
    yield f"  {count(len(model.changed), 'tensor')} changed"
    ordered = sorted(model.changed.items(), key=lambda item: -_relative(item[1]))
    for name, change in ordered[:SHOWN_CHANGES]:
        yield f"    {printable(name)}: {describe_change(change)}"
    if len(ordered) > SHOWN_CHANGES:
        yield f"    ... {len(ordered)} in all, these changed most"


def _relative(change: Change) -> float:
    return change.norm / change.before if change.before else change.norm


def describe_change(change: Change) -> str:
    """How a tensor differs, in words."""
    before, after = change.shapes
    if before != after:
        return f"{change.dtypes[0]} {list(before)} became {change.dtypes[1]} {list(after)}"
    dtypes = ""
    if change.dtypes[0] != change.dtypes[1]:
        dtypes = f"{change.dtypes[0]} and {change.dtypes[1]}"
        if not change.differing:
            return f"{dtypes}, equal after a cast"
    bits = f" ({count(change.bits, 'bit')})" if change.bits else ""
    parts = [dtypes, f"{change.differing} of {count(change.elements, 'element')} differ{bits}"]
    if change.first is not None:
        parts.append(f"first element {change.first}")
    if change.measured:
        about = "" if change.measured >= change.elements else "about "
        least = "" if change.measured >= change.elements else "at least "
        parts.append(f"norm of the difference {about}{change.norm:.3g} of {change.before:.3g}")
        parts.append(f"largest difference {least}{change.largest:.3g}")
    if change.not_finite:
        parts.append(f"{change.not_finite} that are no numbers")
    return ", ".join(part for part in parts if part)


def describe_diff(diff: FolderDiff) -> Iterator[str]:
    """The lines of a comparison of two folders."""
    for which, folder, kind in (
        ("first", diff.first, diff.formats[0]),
        ("second", diff.second, diff.formats[1]),
    ):
        yield f"{which}: {printable(str(folder))} ({kind or 'no weights'})"
    for label in diff.only_first:
        yield f"only in the first: {printable(label)}"
    for label in diff.only_second:
        yield f"only in the second: {printable(label)}"
    for part in diff.parts:
        yield ""
        yield from _describe_part(part, any_dtype=diff.any_dtype)
    yield ""
    if diff.is_same:
        yield "same"
    elif not diff.parts:
        yield "nothing to compare: the folders hold no weights of the same kind"
    else:
        yield "the folders differ"


def _describe_part(part: PartDiff, *, any_dtype: bool) -> Iterator[str]:
    same = part.tensors - len(part.changed)
    total = count(part.tensors, "tensor")
    yield f"{printable(part.label)}: {same} of {total} in both are the same"
    ordered = sorted(part.changed.items(), key=lambda item: item[1].keeps_values)
    yield from _some(f"  {name}: {describe_change(change)}" for name, change in ordered)
    yield from _some(f"  only in the first: {name}" for name in part.only_first)
    yield from _some(f"  only in the second: {name}" for name in part.only_second)
    yield from _some(f"  tied to another tensor: {name}" for name in part.tied)
    for file in part.files[:SHOWN]:
        yield f"  {printable(file.file)}: {count(file.count, 'difference')}"
        yield from (f"    {printable(entry)}" for entry in file.entries)
        if file.count > len(file.entries):
            yield f"    ... {file.count} in all"
    yield from _some(f"  not compared: {reason}" for reason in part.uncompared)
    if any_dtype and part.changed and all(c.keeps_values for c in part.changed.values()):
        yield "  dtypes that differ do not count (--any-dtype)"


def _some(lines: Iterator[str] | Sequence[str]) -> Iterator[str]:
    found = list(lines)
    yield from map(printable, found[:SHOWN])
    if len(found) > SHOWN:
        yield f"  ... {len(found)} in all"
