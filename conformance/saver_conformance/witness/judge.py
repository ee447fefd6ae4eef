"""What is left in the folder against what was trained."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from saver_conformance.comparison.stored import (
    StoredPart,
    StoredTensor,
    TensorBytes,
    UnreadableTensorError,
    read_parts,
)
from saver_conformance.comparison.tensor_change import compare
from saver_conformance.comparison.training_check import check_training
from saver_conformance.errors import ComparisonError
from saver_conformance.folder.safetensors import write as write_tensors
from saver_conformance.safe_text import count, printable
from saver_conformance.witness.record import NoRecordError, Record

SHOWN = 5
"""Tensors of one kind that are named."""
_ADAPTER, _MODEL = "adapter_model.safetensors", "model.safetensors"


@dataclass(frozen=True, slots=True)
class FolderJudgement:
    """What a folder has of a training.

    Attributes:
        lost: what is wrong for sure, in words.
        unknown: what could not be decided, in words.
        notes: what is worth knowing.
    """

    lost: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def judge_folder(record: Record, output: Path, base: Path | None, scratch: Path) -> FolderJudgement:
    """Compare the folder ``output`` with what was trained.

    Args:
        record: what was trained.
        output: the folder that the command left.
        base: the model that it began with; None where it is not at hand.
        scratch: a folder for the expected save.
    """
    wanted = "adapter" if record.adapter else "model"
    try:
        parts = read_parts(output) if output.is_dir() else ()
        expected = _write_expected(record, scratch / "expected")
    except (OSError, NoRecordError) as error:
        return FolderJudgement(unknown=(str(error),))
    if not any(part.tensors for part in parts):
        return FolderJudgement(lost=(f"no weights lie in {output}{_what_lies_there(output)}",))
    own = [part for part in parts if (part.is_adapter == (wanted == "adapter"))]
    own.sort(key=lambda part: part.place != "")
    if own:
        return _compare(record, expected, own[0])
    if wanted == "model":
        return FolderJudgement(
            lost=("the whole model was trained, and only an adapter lies there",)
        )
    return _merged(output, base, scratch / "expected")


def _write_expected(record: Record, folder: Path) -> StoredPart:
    """What belongs in the save, as a folder of our own."""
    folder.mkdir(parents=True)
    adapter = record.adapter
    name = _ADAPTER if adapter else _MODEL
    write_tensors(folder / name, record.expected)
    settings, file = (
        (adapter["config"], "adapter_config.json")
        if adapter
        else (record.plain["config"], "config.json")
    )
    (folder / file).write_text(json.dumps(settings))
    [part] = read_parts(folder)
    return part


def _compare(record: Record, expected: StoredPart, found: StoredPart) -> FolderJudgement:
    names, values = (
        _compare_names(record, expected, found),
        _compare_values(record, expected, found),
    )
    return FolderJudgement(
        (*names.lost, *values.lost),
        (*found.problems, *names.unknown, *values.unknown),
        (*names.notes, *values.notes),
    )


def _compare_names(record: Record, expected: StoredPart, found: StoredPart) -> FolderJudgement:
    lost, unknown, notes = list[str](), list[str](), list[str]()
    absent = [name for name in expected.tensors if name not in found.tensors]
    extra = [name for name in found.tensors if name not in expected.tensors]
    elsewhere = _contents(found, extra) if absent else set()
    renamed = [name for name in absent if _key(expected.tensors[name]) in elsewhere]
    missing = [name for name in absent if name not in renamed]
    if missing and len(extra) > len(renamed) and not found.is_adapter:
        # A library may split, join or rename tensors when it saves: what is there may be them.
        unknown.append(f"other names in the folder: {_some(missing)} not found")
    elif missing:
        lost.append(f"{count(len(missing), 'trained tensor')} missing: {_some(missing)}")
    if renamed:
        notes.append(f"{count(len(renamed), 'tensor')} under other names: {_some(renamed)}")
    further = [name for name in extra if name not in record.plain["tied"]]
    if further and not (renamed or found.is_adapter):
        notes.append(f"{count(len(further), 'further tensor')}: {_some(further)}")
    return FolderJudgement(tuple(lost), tuple(unknown), tuple(notes))


def _compare_values(record: Record, expected: StoredPart, found: StoredPart) -> FolderJudgement:
    stale, differing, cast, unknown = list[str](), list[str](), list[str](), list[str]()
    untrained = record.untrained
    for name in (name for name in expected.tensors if name in found.tensors):
        try:
            change = compare(expected.tensors[name], found.tensors[name])
            digest = "" if change.is_equal else _digest(found.tensors[name])
        except UnreadableTensorError as error:
            unknown.append(f"{name}: {error}")
            continue
        if change.is_equal:
            continue
        if digest == untrained.get(name):
            stale.append(name)
        elif change.keeps_values:
            cast.append(f"{name}: {change.dtypes[0]} as {change.dtypes[1]}")
        elif change.shapes[0] != change.shapes[1]:
            differing.append(f"{name}, shape {change.shapes[0]} as {change.shapes[1]}")
        else:
            differing.append(f"{name}, {change.differing} of {change.elements} elements")
    told = (
        (stale, "as before the training"),
        (differing, "with other values"),
    )
    return FolderJudgement(
        tuple(
            f"{count(len(names), 'tensor')} {how}: {_some(names)}" for names, how in told if names
        ),
        tuple(unknown),
        (f"{count(len(cast), 'tensor')} in another dtype: {_some(cast)}",) if cast else (),
    )


def _merged(output: Path, base: Path | None, adapter: Path) -> FolderJudgement:
    """A whole model where an adapter was trained: the base with the adapter merged into it."""
    if base is None or not base.is_dir():
        return FolderJudgement(
            unknown=(
                "an adapter was trained, and a whole model lies there; --base DIR names the model "
                "that it was merged into",
            )
        )
    try:
        check = check_training(output, base, adapter)
    except (ComparisonError, OSError) as error:
        return FolderJudgement(unknown=(str(error),))
    return FolderJudgement(
        lost=tuple(note.text for note in check.notes if note.is_wrong),
        notes=(
            f"the adapter was merged into {base}",
            *(note.text for note in check.notes if not note.is_wrong),
        ),
    )


def _contents(part: StoredPart, names: list[str]) -> set[tuple[object, ...]]:
    found = set()
    for name in names:
        with suppress(UnreadableTensorError):
            found.add(_key(part.tensors[name]))
    return found


def _key(tensor: StoredTensor) -> tuple[object, ...]:
    return tensor.dtype, tensor.shape, _digest(tensor)


def _digest(tensor: StoredTensor) -> str:
    with TensorBytes(tensor) as data:
        return hashlib.sha256(data.read(0, tensor.nbytes)).hexdigest()


def _what_lies_there(output: Path) -> str:
    if not output.is_dir():
        return "; there is no such folder"
    return f"; there are {_some(sorted(path.name for path in output.iterdir())) or 'no files'}"


def _some(names: list[str]) -> str:
    shown = ", ".join(map(printable, names[:SHOWN]))
    return f"{shown}, ..." if len(names) > SHOWN else shown


def describe(record: Record, output: Path, found: FolderJudgement) -> Iterator[str]:
    """The lines about a folder, and the answer."""
    plain = record.plain
    what = "an adapter" if record.adapter else "a whole model"
    ranks = count(plain["ranks"], "rank")
    steps = count(plain["steps"], "step")
    yield (
        f"{plain['trainer']} trained {what} by {plain['engine']} on {ranks}, {steps}; judged: "
        f"{printable(str(output))}"
    )
    yield from (f"  LOST: {text}" for text in found.lost)
    yield from (f"  unknown: {text}" for text in found.unknown)
    yield from (f"  note: {text}" for text in found.notes)
    if found.lost:
        yield "the folder does not hold what was trained"
    elif found.unknown:
        yield "whether the folder holds what was trained could not be decided"
    else:
        yield "the folder holds what was trained"
