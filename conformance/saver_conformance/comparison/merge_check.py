"""Whether a merged model is its base with an adapter added, once and everywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from saver_conformance.comparison.merge import Outcome, TargetCheck, check_target
from saver_conformance.comparison.merge_plan import MergePlan, plan_merge
from saver_conformance.comparison.names import align, in_words
from saver_conformance.comparison.notes import Note
from saver_conformance.comparison.stored import StoredPart, UnreadableTensorError
from saver_conformance.comparison.tensor_change import compare
from saver_conformance.safe_text import count


@dataclass(frozen=True, slots=True)
class MergeCheck:
    """What became of an adapter's targets in a merged model.

    Attributes:
        targets: what became of each, by the base's name.
        explained: tensors whose change is judged here, or that may change, by the base's name.
        notes: what is wrong for sure, and what is worth knowing.
        is_judged: whether the kind of the adapter is known.
    """

    targets: Mapping[str, TargetCheck]
    explained: frozenset[str]
    notes: tuple[Note, ...]
    is_judged: bool = True


def check_merge(
    model: StoredPart, base: StoredPart, adapter: StoredPart, *, every: bool = False
) -> MergeCheck:
    """Compare ``model`` with ``base`` and ``adapter``; what cannot be read is said elsewhere."""
    plan = plan_merge(adapter, base)
    if isinstance(plan, str):
        note = Note(False, f"the merge is not judged: {plan}")
        return MergeCheck({}, frozenset(), (note,), is_judged=False)
    own = {theirs: name for name, theirs in align(model.tensors, base.tensors).items()}
    targets: dict[str, TargetCheck] = {}
    for name, blocks in plan.targets.items():
        before, after = base.tensors[name], model.tensors.get(own.get(name, ""))
        if after is None or after.shape != before.shape:
            reason = "it is absent" if after is None else f"its shape is {list(after.shape)}"
            targets[name] = TargetCheck(Outcome.UNCHECKED, reason=reason)
            continue
        try:
            targets[name] = check_target(before, after, blocks, every=every)
        except UnreadableTensorError as error:
            targets[name] = TargetCheck(Outcome.UNCHECKED, reason=str(error))
    notes = (
        *_describe(targets),
        *_replaced(model, plan, own),
        *(Note(False, f"not judged: {reason}") for reason in plan.unjudged[:_SHOWN]),
    )
    explained = frozenset({*targets, *plan.replaced, *plan.touched})
    return MergeCheck(targets, explained, notes)


_SHOWN = 10


def _describe(targets: Mapping[str, TargetCheck]) -> Iterator[Note]:
    by_outcome: dict[Outcome, list[str]] = {}
    for name, check in targets.items():
        by_outcome.setdefault(check.outcome, []).append(name)
    total = len(targets)
    if missed := by_outcome.get(Outcome.MISSED):
        yield Note(True, _missed(missed, total, targets), tuple(missed))
    yield from _scaled(by_outcome.get(Outcome.SCALED, []), targets)
    if partly := by_outcome.get(Outcome.PARTLY):
        text = f"{count(len(partly), 'target')} of {total} merged only in part"
        share = max(targets[name].wrong / targets[name].elements for name in partly)
        yield Note(
            True,
            f"{text} (up to {share:.0%} of the elements are the base's): {in_words(partly)}",
            tuple(partly),
        )
    if other := by_outcome.get(Outcome.OTHER):
        worst = max(other, key=lambda name: targets[name].largest)
        yield Note(
            True,
            f"{count(len(other), 'target')} of {total} not base + scale * B @ A: "
            f"{in_words(other)}; {worst} is off by up to {targets[worst].largest:.3g}",
            tuple(other),
        )
    if invisible := by_outcome.get(Outcome.INVISIBLE):
        text = f"{count(len(invisible), 'target')} of {total} equal to the base's as expected"
        yield Note(
            False,
            f"{text}: the adapter's change is smaller than the rounding: {in_words(invisible)}",
            tuple(invisible),
        )
    if unchecked := by_outcome.get(Outcome.UNCHECKED):
        text = f"{count(len(unchecked), 'target')} of {total} not checked"
        yield Note(
            False,
            f"{text}: {unchecked[0]}: {targets[unchecked[0]].reason}",
            tuple(unchecked),
        )


def _missed(missed: list[str], total: int, targets: Mapping[str, TargetCheck]) -> str:
    if len(missed) == total:
        return f"the adapter was not merged: {total} of {count(total, 'target')} equal the base's"
    kept = [name for name in targets if name not in set(missed)]
    experts = [name for name in missed if ".experts." in name]
    what = "the merge missed"
    if len(experts) == len(missed) and not any(".experts." in name for name in kept):
        what = "the merge missed the experts:"
    of = f"{len(missed)} of {count(total, 'target')}"
    return f"{what} {of}, which equal the base's: {in_words(missed)}"


def _scaled(scaled: list[str], targets: Mapping[str, TargetCheck]) -> Iterator[Note]:
    by_factor: dict[str, list[str]] = {}
    for name in scaled:
        by_factor.setdefault(f"{targets[name].factor:.3g}", []).append(name)
    for names in by_factor.values():
        factor = targets[names[0]].factor
        of = f"{len(names)} of {count(len(targets), 'target')}"
        yield Note(True, f"{_factor_in_words(factor)} ({of}): {in_words(names)}", tuple(names))


def _factor_in_words(factor: float) -> str:
    if factor == 2:
        return "the adapter was merged twice"
    if factor == round(factor) and factor > 2:
        return f"the adapter was merged {factor:g} times"
    if factor == -1:
        return "the adapter was taken away from the base instead of added"
    if 0 < factor < 1 and abs(1 / factor - round(1 / factor)) < 1e-9:
        ranks = round(1 / factor)
        return f"the adapter was merged with 1/{ranks} of its scale, as a mean over {ranks} ranks"
    return f"the adapter was merged with {factor:.3g} times its scale"


def _replaced(model: StoredPart, plan: MergePlan, own: Mapping[str, str]) -> Iterator[Note]:
    """Tensors that the adapter holds whole have to be in the model as they are."""
    wrong: list[str] = []
    for name, tensor in plan.replaced.items():
        after = model.tensors.get(own.get(name, ""))
        if after is None or after.shape != tensor.shape:
            continue  # said as absent, or as resized
        try:
            if not compare(tensor, after).keeps_values:
                wrong.append(name)
        except UnreadableTensorError:
            continue
    if wrong:
        text = f"{count(len(wrong), 'tensor')} that the adapter holds whole, not in the model"
        yield Note(True, f"{text}: {in_words(wrong)}", tuple(wrong))
