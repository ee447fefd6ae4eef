"""How the layouts of ranks differ, where they do, and what else they were given apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from canonical_saver.collectives import Ranks
from canonical_saver.errors import VerifyError
from canonical_saver.writing.agreement import Described


def explain(mine: Described, ranks: Ranks) -> VerifyError:
    """Say how the layouts of the ranks differ; collective.

    Args:
        mine: the tensors of this rank.
        ranks: the ranks of the save.
    """
    theirs = ranks.on_first("compare layouts", lambda: mine)
    texts = ranks.exchange("compare layouts", lambda: difference(theirs, mine, ranks.rank))
    found = next((text for text in texts if text), "")
    return VerifyError(
        found or "the ranks hold the same tensors in another order; expected one order"
    )


def difference(first: Described, other: Described, rank: int) -> str:
    """Say how the tensors of a rank differ from those of rank 0; "" if they do not."""
    if text := _adapters(first, other, rank):
        return text
    lacks = [name for name in first if name not in other]
    more = [name for name in other if name not in first]
    if lacks and more and not _layers(first) & _layers(other):
        return (
            f"expected the whole model on every rank, found other layers on rank 0 ('{lacks[0]}') "
            f"than on rank {rank} ('{more[0]}'); pipeline parallelism is not supported, put the "
            "model together before the save"
        )
    same = "expected the same tensors on every rank"
    hint = "is it the same model on every rank?"
    if lacks:
        return f"'{lacks[0]}': {same}, found it on rank 0 and not on rank {rank}; {hint}"
    if more:
        return f"'{more[0]}': {same}, found it on rank {rank} and not on rank 0; {hint}"
    for name, (dtype, shape) in first.items():
        if other[name] == (dtype, shape):
            continue
        if other[name][0] == dtype and len(other[name][1]) == len(shape):
            hint = "are these parts of it (tensor parallelism without DTensor)?"
        return (
            f"'{name}': {same}, found {dtype} of shape {shape} on rank 0 and {other[name][0]} of "
            f"shape {other[name][1]} on rank {rank}; {hint}"
        )
    return ""


def _adapters(first: Described, other: Described, rank: int) -> str:
    """Say that the adapters of a rank have other names than those of rank 0; "" if not."""
    here, there = (
        dict.fromkeys(name.rpartition("/")[0] or "default" for name in described)
        for described in (first, other)
    )
    if here.keys() == there.keys() or not (here and there):
        return ""
    return (
        f"expected adapters of the same names on every rank, found {_quoted(here)} on rank 0 and "
        f"{_quoted(there)} on rank {rank}; name and activate the same adapters on every rank"
    )


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)


def of_tokenizers(given: Sequence[bool]) -> tuple[str, ...]:
    """Warn of a tokenizer that only a rank was given which does not write it.

    Args:
        given: for each rank, whether it was given one; not rank 0, and some other one.
    """
    rank = given.index(True)
    return (
        f"tokenizer: expected it on rank 0, which writes it, found it on rank {rank} and not on "
        "rank 0; none was saved: write it by its save_pretrained(FOLDER)",
    )


def _layers(described: Described) -> set[str]:
    """The numbered modules in which tensors lie, by the beginnings of their names."""
    found = set()
    for name in described:
        steps = name.split(".")
        number = next((n for n, step in enumerate(steps) if step.isdecimal()), None)
        if number is not None:
            found.add(".".join(steps[: number + 1]))
    return found
