"""What a proof says: data, and the same in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from canonical_saver.proving.safe_files import printable, quoted

MOST_NAMED = 3
"""Tensors that a line names."""

MOST_LINES = 30
"""Findings that a proof shows as text."""


@dataclass(frozen=True)
class Difference:
    """A tensor of the folder that has other bytes than that of the model.

    Attributes:
        name: its name in the folder.
        file: its file, relative to the folder.
        first: the first byte that differs, counted from the tensor's first.
        in_file: the same, counted from the file's first.
        count: how many bytes differ.
        expected: bytes of the model from there on, in hex, in the dtype of the file.
        found: bytes of the file from there on, in hex.
        ranks: the ranks whose part of it differs; the one that converted it, where it was.
    """

    name: str
    file: str
    first: int
    in_file: int
    count: int
    expected: str
    found: str
    ranks: tuple[int, ...]


@dataclass(frozen=True)
class WrongShape:
    """A tensor that cannot be that of the model, by its shape or the kind of its dtype.

    Attributes:
        name: its name in the folder.
        file: its file.
        expected: dtype and shape of the model.
        found: dtype and shape in the file.
    """

    name: str
    file: str
    expected: str
    found: str


@dataclass(frozen=True)
class WrapperName:
    """A tensor under a name that a wrapper gave it, or without the one that PEFT gives.

    Attributes:
        found: its name in the folder.
        expected: the name by which a loader looks for it.
    """

    found: str
    expected: str


@dataclass(frozen=True)
class Cast:
    """A tensor whose elements are those of the model, rounded.

    Attributes:
        name: its name in the folder.
        dtype: what they were rounded to.
        lossless: nothing was lost, since every number of the model's dtype is one of it.
    """

    name: str
    dtype: str
    lossless: bool


@dataclass(frozen=True)
class SwappedSlice:
    """A tensor with the bytes of one rank at the place of another.

    Attributes:
        name: its name in the folder.
        place: the rank whose bytes belong there.
        holds: the rank whose bytes lie there.
    """

    name: str
    place: int
    holds: int


@dataclass(frozen=True)
class Companion:
    """Something next to the weights that is not as in memory.

    Attributes:
        file: its file, relative to the folder.
        key: the place in it, "" for all of it.
        expected: the value in memory.
        found: the value in the file.
    """

    file: str
    key: str
    expected: str
    found: str


@dataclass(frozen=True)
class Proof:
    """Whether a folder is the model in memory. All names are those of the folder.

    Attributes:
        folder: the folder.
        proven: the tensors whose bits are those of the model, up to a cast that was requested.
        missing: tensors of the model that are not there, by the names that a save gives them.
        foreign: tensors that are there, and none of the model.
        different: tensors with other bytes.
        cast: tensors with the model's elements in another dtype, or rounded to one.
        wrong_shape: tensors with another shape, or a dtype of another kind.
        all_zero: tensors of ``different`` of which all that was compared is zero.
        swapped: parts of ``different`` that are those of another rank.
        wrapper_names: tensors under names that no loader looks for.
        tied_twice: tensors that lie there under two names, which loading ties again. They load, and
            take twice the room.
        unseen: tensors of which a part could not be compared, since its rank does not see the
            folder.
        blind: the ranks that do not see the folder that rank 0 sees.
        companions: configuration, tokenizer and templates that are not those in memory.
        stale: weight files that some reader would take beside those that were compared, or for
            them.
        problems: what is wrong with the weight files themselves.
        drifted: copies that differ between the ranks and that a save lets differ, in words. The
            folder was compared with those that a save writes.
        unlike: why what several ranks hold under one name can be no copies of each other, in words.
            No folder can be proven to be all of it.
        notes: what is worth knowing of the files, and no defect.
        bytes: how many bytes of the folder were compared.
        seconds: how long it took on rank 0.
    """

    folder: Path
    proven: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    different: tuple[Difference, ...] = ()
    cast: tuple[Cast, ...] = ()
    wrong_shape: tuple[WrongShape, ...] = ()
    all_zero: tuple[str, ...] = ()
    swapped: tuple[SwappedSlice, ...] = ()
    wrapper_names: tuple[WrapperName, ...] = ()
    tied_twice: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    blind: tuple[int, ...] = ()
    companions: tuple[Companion, ...] = ()
    stale: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    drifted: tuple[str, ...] = ()
    unlike: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    bytes: int = 0
    seconds: float = 0.0

    @property
    def weights_ok(self) -> bool:
        """Whether the weights of the folder are those of the model, and no others are there."""
        return bool(self.proven or self.cast) and not any(
            (
                self.missing,
                self.foreign,
                self.different,
                [one for one in self.cast if not one.lossless],
                self.wrong_shape,
                self.wrapper_names,
                self.unseen,
                self.problems,
                self.unlike,
            )
        )

    @property
    def ok(self) -> bool:
        """Whether whoever loads the folder gets this model and nothing else."""
        return self.weights_ok and not self.companions and not self.stale

    @property
    def summary(self) -> str:
        """One line: what was found, and what to do."""
        if not self.ok:
            first, *more = self.findings()
            also = f" (and {len(more)} more findings)" if more else ""
            is_other = "is not the model in memory"
            if self.weights_ok:
                is_other = "holds the weights in memory, and something that does not belong to them"
            return f"{self.folder} {is_other}: {first}{also}; {self._advice()}"
        note = ""
        if self.cast:
            note = f", {len(self.cast)} of them in a wider dtype"
        if self.tied_twice:
            note += f", {_listed(self.tied_twice)} stored twice"
        if self.drifted:
            note += "; copies of the ranks differ, see the notes"
        count = len(self.proven) + len(self.cast)
        return (
            f"{self.folder} is the model in memory: {count} tensors, {self.bytes:,} bytes "
            f"compared{note}; nothing to do"
        )

    def findings(self) -> list[str]:
        """Everything that is not as in memory, one line each."""
        of_tensors = (*self._of_tensors(), *self._of_bytes())
        return [*self.unlike, *self._of_files(), *of_tensors, *self._beside()]

    def __str__(self) -> str:
        """The summary and, below it, the findings, ``MOST_LINES`` of them."""
        found = self.findings()
        lines = [self.summary, *(f"  {text}" for text in found[:MOST_LINES])]
        if len(found) > MOST_LINES:
            lines.append(f"  and {len(found) - MOST_LINES} more; findings() has them all")
        lines += [f"  note: {text}" for text in (*self.notes, *self.drifted)[:MOST_LINES]]
        return "\n".join(lines)

    def _of_files(self) -> Iterator[str]:
        yield from self.problems
        there = (
            *(self.proven, self.cast, self.different, self.wrong_shape, self.foreign),
            *(self.wrapper_names, self.unseen, self.problems),
        )
        if not any(there):
            yield "no weights that a loader of this model takes are in the folder"
        if self.blind:
            effect = "others compared what they hold"
            if self.unseen:
                effect = f"{len(self.unseen)} tensors could not be compared"
            yield (
                f"ranks {list(self.blind)} do not see the folder that rank 0 sees, so that {effect}"
            )

    def _of_tensors(self) -> Iterator[str]:
        for name in self.missing:
            yield f"{quoted(name)}: expected it in the folder, found none"
        for one in self.wrapper_names:
            yield f"{quoted(one.found)}: expected the name {quoted(one.expected)}"
        for name in self.foreign:
            yield f"{quoted(name)}: in the folder, and no tensor of the model"
        for wrong in self.wrong_shape:
            place = f"{quoted(wrong.name)} ({printable(wrong.file)})"
            yield f"{place}: expected {wrong.expected}, found {wrong.found}"

    def _of_bytes(self) -> Iterator[str]:
        zero = set(self.all_zero)
        for one in self.different:
            text = f"{one.count} {'byte differs' if one.count == 1 else 'bytes differ'}, the first "
            text += f"is byte {one.first} (byte {one.in_file} of {printable(one.file)}): expected "
            text += f"{one.expected}, found {one.found}"
            if one.name in zero:
                text += "; all of it is zero"
            yield f"{quoted(one.name)}: {text}{_of_ranks(one.ranks)}"
        for swapped in self.swapped:
            yield (
                f"{quoted(swapped.name)}: the part of rank {swapped.place} is that of rank "
                f"{swapped.holds}"
            )
        for cast in self.cast:
            if not cast.lossless:
                yield f"{quoted(cast.name)}: equal after a cast to {cast.dtype}"

    def _beside(self) -> Iterator[str]:
        for one in self.companions:
            place = f"{one.file}: {one.key}" if one.key else one.file
            yield f"{place}: expected {one.expected}, found {one.found}"
        for name in self.stale:
            yield f"{printable(name)}: no part of these weights, and some readers take it"

    def _advice(self) -> str:
        if self.unlike:
            return "see to the ranks first; what rank 0 holds is not the whole model"
        if self.blind:
            return "prove it where every rank sees the folder"
        lossy = [one for one in self.cast if not one.lossless]
        if lossy and not (self.different or self.missing or self.wrong_shape or self.foreign):
            return (
                f"say dtype='{lossy[0].dtype}' if that was asked for, or save again without a cast"
            )
        if not self.weights_ok:
            return "do not use the folder; save the model again into an empty one"
        if self.stale:
            return f"remove {_listed(self.stale)} if nobody needs it"
        return f"write {self.companions[0].file} again, by save_pretrained of what is in memory"


def _of_ranks(ranks: Sequence[int]) -> str:
    if not ranks:
        return ""
    shown = ", ".join(map(str, ranks[:8])) + (" and others" if len(ranks) > 8 else "")
    return f" (rank {shown})" if len(ranks) == 1 else f" (ranks {shown})"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(map(printable, names[:MOST_NAMED])) + more
