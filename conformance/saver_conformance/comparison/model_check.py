"""How the tensors of a fine-tuned model differ from its base's, and what that means."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from saver_conformance.comparison.merge_check import MergeCheck
from saver_conformance.comparison.names import align, in_words, layer_of, ranges
from saver_conformance.comparison.notes import Note
from saver_conformance.comparison.slices import find_lost_slice
from saver_conformance.comparison.stored import StoredPart, UnreadableTensorError
from saver_conformance.comparison.tensor_change import (
    Advance,
    Change,
    are_copies,
    compare,
    find_rounding,
)
from saver_conformance.safe_text import count

# Buffers that some versions of a library save and others compute.
_COMPUTED = ("rotary_emb.inv_freq", ".position_ids", ".masked_bias", ".attn.bias", "_extra_state")
_OF_LAST_LAYERS = ("mtp", "nextn", "eagle")
_MOST_TIED = 100
_MOST_COUNTERPARTS = 1000
_SIZES = ("architectures", "model_type", "num_hidden_layers", "num_nextn_predict_layers")


@dataclass(frozen=True, slots=True)
class ModelCheck:
    """How a model differs from its base.

    Attributes:
        equal: names of tensors whose values are the base's, bit for bit or after a cast.
        changed: the others that both have, by the model's name.
        cast: number of tensors in ``equal`` that are the base's after a cast, to their dtype or to
            one in which the model was loaded.
        absent: names of the base's tensors that the model lacks.
        new: names of tensors that the base lacks.
        tied: names that are absent because another tensor holds the same by design.
        notes: what is wrong for sure, and what is worth knowing.
    """

    equal: tuple[str, ...]
    changed: Mapping[str, Change]
    cast: int
    absent: tuple[str, ...]
    new: tuple[str, ...]
    tied: tuple[str, ...]
    notes: tuple[Note, ...]


def check_model(
    model: StoredPart,
    base: StoredPart,
    merge: MergeCheck | None = None,
    *,
    is_beside_adapter: bool = False,
    every: bool = False,
    advance: Advance | None = None,
) -> ModelCheck:
    """Compare ``model`` with ``base``.

    Args:
        model: the fine-tuned model.
        base: the model before.
        merge: what is known of an adapter that was merged.
        is_beside_adapter: whether an adapter lies in the same folder, for which this may be the
            base.
        every: whether the values of all elements are measured.
        advance: is told of progress.
    """
    theirs = align(model.tensors, base.tensors)
    changes, rounded, lost, unread = _compare_all(model, base, theirs, every=every, advance=advance)
    equal = tuple(
        name for name, change in changes.items() if name in rounded or change.keeps_values
    )
    changed = {name: change for name, change in changes.items() if name not in set(equal)}
    present = set(theirs.values())
    gone = tuple(name for name in base.tensors if name not in present)
    # Few tensors are tied, and each is compared with many.
    tied = tuple(name for name in gone[:_MOST_TIED] if _is_tied(name, base, present))
    absent = tuple(name for name in gone if name not in set(tied))
    new = tuple(name for name in model.tensors if name not in theirs)
    cast = sum(not changes[name].is_equal for name in equal)
    result = ModelCheck(equal, changed, cast, absent, new, tied, ())
    notes = [
        *(Note(True, f"cannot be read: {problem}") for problem in unread),
        *_untouched(result, merge, is_beside_adapter=is_beside_adapter),
        *_shapes(changed, model, base, theirs),
        *_absent(absent, new, model, base),
        *lost,
        *_beside_the_merge(changed, theirs, merge, base),
        *_worth_knowing(result, theirs),
    ]
    return ModelCheck(equal, changed, cast, absent, new, tied, tuple(notes))


def _compare_all(
    model: StoredPart,
    base: StoredPart,
    theirs: Mapping[str, str],
    *,
    every: bool,
    advance: Advance | None,
) -> tuple[dict[str, Change], dict[str, str], list[Note], list[str]]:
    """Changes and dtypes of loading by name, slices that are lost, and what cannot be read."""
    changes: dict[str, Change] = {}
    rounded: dict[str, str] = {}
    lost: list[Note] = []
    unread: list[str] = []
    order = sorted(
        theirs, key=lambda name: (str(model.tensors[name].path), model.tensors[name].begin)
    )
    for name in order:
        before, after = base.tensors[theirs[name]], model.tensors[name]
        try:
            changes[name] = compare(before, after, every=every, advance=advance)
            if changes[name].keeps_values:
                continue
            if dtype := find_rounding(before, after):
                rounded[name] = dtype
            elif found := find_lost_slice(after, before):
                lost.append(Note(True, f"{name}: {found}; the base's is not", (name,)))
        except UnreadableTensorError as error:
            unread.append(f"{name}: {error}")
    return changes, rounded, lost, unread


def _untouched(
    result: ModelCheck, merge: MergeCheck | None, *, is_beside_adapter: bool
) -> Iterator[Note]:
    if result.changed or not result.equal:
        return
    if merge is not None and merge.is_judged:
        return  # what became of the targets says more
    what = f"all {count(len(result.equal), 'tensor')} equal the base's"
    if result.cast:
        what = f"{what}, {result.cast} of them after a cast"
    if is_beside_adapter:
        yield Note(False, f"the model beside the adapter is the base: {what}")
    elif result.new:
        yield Note(
            False, f"{what}; only new ones can hold what was trained: {in_words(result.new)}"
        )
    else:
        yield Note(True, f"this is an untouched copy of the base: {what}")


def _shapes(
    changed: Mapping[str, Change], model: StoredPart, base: StoredPart, theirs: Mapping[str, str]
) -> Iterator[Note]:
    resized: list[str] = []
    lost: list[str] = []
    for name, change in changed.items():
        before, after = change.shapes
        if before == after:
            continue
        # A partitioned or a flat parameter has lost its shape; other sizes may be meant.
        is_lost = len(before) != len(after) or (0 in after and 0 not in before)
        (lost if is_lost else resized).append(name)
    for names, is_wrong, what in ((lost, True, "lost its shape"), (resized, False, "resized")):
        if names:
            before, after = changed[names[0]].shapes
            text = f"{count(len(names), 'tensor')} {what}: {names[0]} is {list(after)}"
            yield Note(is_wrong, f"{text}, the base's is {list(before)}", tuple(names))


def _absent(
    absent: tuple[str, ...], new: tuple[str, ...], model: StoredPart, base: StoredPart
) -> Iterator[Note]:
    computed = tuple(name for name in absent if name.endswith(_COMPUTED))
    if computed:
        yield Note(False, f"absent, computed on loading: {in_words(computed)}", computed)
    homes = {_home(name) for name in new}
    renamed = tuple(name for name in absent if _home(name) in homes and name not in set(computed))
    if renamed:
        text = f"{count(len(renamed), 'tensor')} of the base absent, others beside them new"
        yield Note(False, f"{text}; are they stored in another way? {in_words(renamed)}", renamed)
    real = tuple(name for name in absent if name not in {*computed, *renamed})
    if not real:
        return
    text = f"{count(len(real), 'tensor')} of the base absent: {in_words(real)}"
    if predicting := tuple(name for name in real if _is_of_prediction(name, base.folder.settings)):
        text += f"; {len(predicting)} of them predict further tokens (MTP)"
    claims = {key: model.folder.settings.get(key) for key in _SIZES}
    is_same = claims == {key: base.folder.settings.get(key) for key in _SIZES}
    if not is_same or not model.folder.settings:
        text += "; the configuration is another one, so that this may be meant"
    yield Note(is_same and bool(model.folder.settings), text, real)


def _home(name: str) -> str:
    """The module whose tensors are stored together or apart: of queries and keys, of experts."""
    before, experts, _ = name.partition(".experts.")
    return before if experts else name.rpartition(".")[0].rpartition(".")[0] or name


def _is_of_prediction(name: str, settings: Mapping[str, Any]) -> bool:
    """Whether a tensor belongs to layers that predict further tokens, which loading often skips."""
    if any(part in _OF_LAST_LAYERS for part in name.split(".")[:4]):
        return True
    layers, layer = settings.get("num_hidden_layers"), layer_of(name)
    return type(layers) is int and layer is not None and layer >= layers


def _beside_the_merge(
    changed: Mapping[str, Change],
    theirs: Mapping[str, str],
    merge: MergeCheck | None,
    base: StoredPart,
) -> Iterator[Note]:
    if merge is None or not merge.is_judged:
        return
    others = [
        name
        for name, change in changed.items()
        if theirs[name] not in merge.explained and change.shapes[0] == change.shapes[1]
    ]
    doubtful = [
        name
        for name in others[:_MOST_TIED]
        if _has_counterpart(theirs[name], merge.explained, base)
    ]
    wrong = tuple(name for name in others if name not in set(doubtful))
    if wrong:
        text = f"{count(len(wrong), 'tensor')} changed that the adapter does not touch"
        yield Note(True, f"{text}: {in_words(wrong)}", wrong)
    if doubtful:
        text = "changed with the tensor that it is tied to"
        yield Note(False, f"{text}: {in_words(doubtful)}", tuple(doubtful))


def _worth_knowing(result: ModelCheck, theirs: Mapping[str, str]) -> Iterator[Note]:
    if not theirs:
        yield Note(False, "no name is one of the base's, so that nothing could be compared")
        return
    if any(name != other for name, other in theirs.items()):
        name, other = next(pair for pair in theirs.items() if pair[0] != pair[1])
        yield Note(False, f"names have other parts than the base's: {name} for {other}")
    if result.new:
        text = f"{count(len(result.new), 'tensor')} that the base does not have"
        yield Note(False, f"{text}: {in_words(result.new)}", result.new)
    if result.tied:
        yield Note(False, f"absent, tied to another one: {in_words(result.tied)}", result.tied)
    casts = {change.dtypes for change in result.changed.values() if len(set(change.dtypes)) > 1}
    for one, other in sorted(casts):
        names = tuple(n for n, c in result.changed.items() if c.dtypes == (one, other))
        yield Note(False, f"{count(len(names), 'changed tensor')}: {one} became {other}", names)
    if broken := tuple(name for name, change in result.changed.items() if change.not_finite):
        text = f"{count(len(broken), 'tensor')} with NaN or infinite values"
        yield Note(False, f"{text}: {in_words(broken)}", broken)
    yield from _frozen(result)


def _frozen(result: ModelCheck) -> Iterator[Note]:
    """Layers in which nothing changed while others did."""
    if not result.changed:
        return
    moved = {layer_of(name) for name in result.changed}
    still = sorted(
        {layer for name in result.equal if (layer := layer_of(name)) is not None} - moved
    )
    if still and moved - {None}:
        yield Note(False, f"nothing changed in layers {ranges(still)}; were they frozen?")


def _is_tied(name: str, base: StoredPart, present: set[str]) -> bool:
    """Whether the base holds the same twice, and the other one is in the model."""
    if base.folder.settings.get("tie_word_embeddings") is False:
        return False
    return _has_counterpart(name, present, base)


def _has_counterpart(name: str, others: Collection[str], base: StoredPart) -> bool:
    tensor = base.tensors[name]
    if len(tensor.shape) < 2:
        return False
    known = (base.tensors[other] for other in others if other != name and other in base.tensors)
    counterparts = (counterpart for counterpart in known if counterpart.shape == tensor.shape)
    return any(
        are_copies(tensor, counterpart) for counterpart in islice(counterparts, _MOST_COUNTERPARTS)
    )
