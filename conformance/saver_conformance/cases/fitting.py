"""Another model in place of one that a saver, or the trainer that belongs to it, cannot handle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from saver_conformance.cases.case import Case
from saver_conformance.cases.families import families
from saver_conformance.cases.limits import why_untrainable


def with_model(case: Case, architecture: str, kind: str) -> Case:
    """``case`` with a model of another family, and an adapter of another kind on the same layers.

    The same layers are those that the same selection names: families call them differently.
    """
    family = families()[architecture]
    adapter = case.adapter
    if adapter is not None:
        selected = case.family.selection_of(adapter.targets)
        targets = family.selections.get(selected, adapter.targets)
        adapter = replace(adapter, targets=targets, kind=kind)
    views = case.views and family.views
    return replace(case, architecture=architecture, adapter=adapter, views=views)


def nearest_trainable(case: Case, architectures: Sequence[str], kinds: Sequence[str]) -> Case:
    """``case``, or where it cannot be trained the first like it that can.

    Args:
        case: the case.
        architectures: families to try besides its own, in this order.
        kinds: kinds of adapters to try besides its own.

    Returns:
        ``case`` itself where none can be trained.
    """
    if not why_untrainable(case):
        return case
    own = case.adapter.kind if case.adapter else ""
    for architecture in (case.architecture, *architectures):
        for kind in (own, *(kinds if case.adapter else ())):
            other = with_model(case, architecture, kind)
            if not why_untrainable(other):
                return other
    return case
