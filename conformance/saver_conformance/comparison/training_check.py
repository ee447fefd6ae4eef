"""Did the fine-tune get in? A folder against the base that it was trained from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from saver_conformance.checks.evidence import BlockedError
from saver_conformance.comparison.adapter_fit import check_adapter
from saver_conformance.comparison.folder_diff import Begin
from saver_conformance.comparison.merge_check import MergeCheck, check_merge
from saver_conformance.comparison.model_check import ModelCheck, check_model
from saver_conformance.comparison.notes import Note
from saver_conformance.comparison.stored import StoredPart, read_parts
from saver_conformance.errors import ComparisonError
from saver_conformance.folder_check.folder import QUANTIZED_SETTINGS, QUANTIZED_TENSORS

Kind = Literal["model", "merged", "adapter"]


@dataclass(frozen=True, slots=True)
class PartCheck:
    """A model or an adapter of the folder against the base.

    Attributes:
        label: what it is called.
        kind: ``model``, ``merged`` where an adapter was given, or ``adapter``.
        notes: what is wrong for sure, and what is worth knowing.
        model: how the tensors differ from the base's; None for an adapter.
        merge: what became of the adapter's targets; None where none was given.
    """

    label: str
    kind: Kind
    notes: tuple[Note, ...]
    model: ModelCheck | None = None
    merge: MergeCheck | None = None


@dataclass(frozen=True, slots=True)
class TrainingCheck:
    """The answer for a folder.

    Attributes:
        folder: the folder.
        base: the base's.
        adapter: the adapter's, where one was given.
        parts: the models and adapters in the folder.
    """

    folder: Path
    base: Path
    adapter: Path | None
    parts: tuple[PartCheck, ...] = field(default=())

    @property
    def notes(self) -> tuple[Note, ...]:
        """The notes of all parts."""
        return tuple(note for part in self.parts for note in part.notes)

    @property
    def is_fine(self) -> bool:
        """Whether nothing is wrong for sure."""
        return not any(note.is_wrong for note in self.notes)


def check_training(
    folder: Path,
    base: Path,
    adapter: Path | None = None,
    *,
    every: bool = False,
    begin: Begin | None = None,
) -> TrainingCheck:
    """Compare ``folder`` with the base that it was trained from.

    Args:
        folder: a whole model, or an adapter.
        base: the model before the training.
        adapter: the adapter that was merged into ``folder``.
        every: whether the values of all elements are measured.
        begin: is told how much will be read, and gives what is told of progress.

    Raises:
        ComparisonError: ``base`` holds no whole model, ``adapter`` no adapter, or ``folder``
            nothing of that kind.
        OSError: a folder cannot be listed.
    """
    bases = {part.place: part for part in read_parts(base) if not part.is_adapter}
    if not bases:
        raise ComparisonError(f"{base}: expected the weights of a whole model, found none")
    unreadable = [problem for part in bases.values() for problem in part.problems]
    if unreadable:
        raise ComparisonError(f"{base}: the base cannot be read: {unreadable[0]}")
    merged = _one_adapter(adapter) if adapter else None
    parts = read_parts(folder)
    if not parts:
        raise ComparisonError(f"{folder}: expected weights, found none")
    if merged and all(part.is_adapter for part in parts):
        raise ComparisonError(f"{folder}: expected a merged model, found an adapter")
    total = sum(2 * part.nbytes for part in parts)
    advance = begin(total) if begin else None
    is_beside_adapter = any(part.is_adapter for part in parts)

    def check(part: StoredPart) -> PartCheck:
        origin = bases.get("" if part.is_adapter else part.place)
        kind: Kind = "adapter" if part.is_adapter else "merged" if merged else "model"
        if origin is None:
            note = Note(False, f"the base has no {part.label}, nothing to compare it with")
            return PartCheck(part.label, kind, (note,))
        if quantized := _quantized(part, origin):
            return PartCheck(part.label, kind, (quantized,))
        if part.is_adapter:
            notes = _blocked(part) or check_adapter(part, origin)
            return PartCheck(part.label, kind, (*_problems(part), *notes))
        merge = check_merge(part, origin, merged, every=every) if merged else None
        model = check_model(
            part,
            origin,
            merge,
            is_beside_adapter=is_beside_adapter,
            every=every,
            advance=advance,
        )
        found = (*_problems(part), *(merge.notes if merge else ()), *model.notes)
        return PartCheck(part.label, kind, found, model, merge)

    return TrainingCheck(folder, base, adapter, tuple(map(check, parts)))


def _one_adapter(folder: Path) -> StoredPart:
    adapters = [part for part in read_parts(folder) if part.is_adapter]
    own = [part for part in adapters if not part.place] or adapters
    if len(own) != 1:
        raise ComparisonError(f"{folder}: expected one adapter, found {len(own)}")
    if own[0].problems:
        raise ComparisonError(f"{folder}: the adapter cannot be read: {own[0].problems[0]}")
    if blocked := _blocked(own[0]):
        raise ComparisonError(f"{folder}: {blocked[0].text}")
    return own[0]


def _blocked(part: StoredPart) -> list[Note]:
    try:
        _ = part.folder.adapter_config
    except BlockedError as reason:
        return [Note(False, f"the adapter is not judged: {reason}")]
    return []


def _problems(part: StoredPart) -> Iterator[Note]:
    return (Note(True, f"cannot be read: {problem}") for problem in part.problems)


def _quantized(part: StoredPart, base: StoredPart) -> Note | None:
    for one, what in ((base, "the base"), (part, "the folder")):
        if not one.is_adapter and (method := quantization_of(one)):
            return Note(False, f"{what} is quantized ({method}); its values are not judged")
    return None


def quantization_of(part: StoredPart) -> str:
    """How the tensors of ``part`` are quantized; empty where they are not."""
    configs = [part.folder.settings.get(key) for key in QUANTIZED_SETTINGS]
    config = next((config for config in configs if config is not None), None)
    if config is not None:
        method = config.get("quant_method") if isinstance(config, dict) else None
        return method if isinstance(method, str) else "by its configuration"
    by_name = any(name.endswith(QUANTIZED_TENSORS) for name in part.tensors)
    return "by its tensors' names" if by_name else ""
