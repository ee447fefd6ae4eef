"""What an engine cannot train, whoever saves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from saver_conformance.cases.adapter_kind import AdapterKind
from saver_conformance.cases.case import Adapter, Case, Mode
from saver_conformance.cases.family import Family

_OF_CASES = tuple(item.name for item in fields(Case))
_OF_ADAPTERS = tuple(item.name for item in fields(Adapter))


def why_untrainable(case: Case) -> str:
    """Why the engine of ``case`` cannot train it; empty when it can."""
    kind = case.adapter.method if case.adapter else None
    values = values_of(case)
    if why := limited(values, case.mode, case.family, kind):
        return why
    for limit in case.mode.definition.limits:
        if limit.holds(values, case.mode.name):
            return limit.why
    return ""


def limited(
    values: Mapping[str, Any], mode: Mode | None, family: Family | None, kind: AdapterKind | None
) -> str:
    """Which limit of a family or of a kind of adapter forbids ``values``; empty when none does.

    Args:
        values: values of all axes or of some.
        mode: the mode; None when it is not known.
        family: the family of the model; None when it is not known.
        kind: the kind of the adapter; None without one, or when it is not known.
    """
    name = "" if mode is None else mode.name
    for limit in (*(family.limits if family else ()), *(kind.limits if kind else ())):
        if limit.holds(values, name):
            return limit.why
    if family and kind and kind.needs and not getattr(family, kind.needs):
        return f"{family.name} has no {kind.needs}, which {kind.name} needs"
    return ""


def values_of(case: Case) -> dict[str, Any]:
    """The values of ``case`` on the axes."""
    own = {name: getattr(case, name) for name in _OF_CASES}
    adapter = case.adapter
    if adapter is None:
        return own
    own |= {name: getattr(adapter, name) for name in _OF_ADAPTERS}
    return own | {"targets": case.family.selection_of(adapter.targets)}
