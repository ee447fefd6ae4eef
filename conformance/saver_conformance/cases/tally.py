"""How often each value of each axis is tried, by profile: a table of what a run covers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

from saver_conformance.cases.axis_text import AXES
from saver_conformance.cases.case import Adapter, Case
from saver_conformance.cases.limits import values_of
from saver_conformance.cases.shards import estimate

_LEFT_OUT = ("adapter", "alpha", "seed")
"""Fields that say nothing by their own."""
_OF_ADAPTERS = frozenset(item.name for item in fields(Adapter))


def tally(plans: Mapping[str, Sequence[Case]]) -> Iterator[str]:
    """The lines of a Markdown table: axes and their values with the numbers of cases.

    The last lines have the number of cases of each profile and the seconds that they are estimated
    to take on two cores that do nothing else.

    Args:
        plans: the cases of each profile, by its name.
    """
    counts = {profile: _count(cases) for profile, cases in plans.items()}
    yield f"| axis | value | {' | '.join(plans)} |"
    yield "|" + "---|" * (len(plans) + 2)
    every = dict.fromkeys(pair for counted in counts.values() for pair in counted)
    for axis in (name for name in AXES if name not in _LEFT_OUT):
        for name, value in sorted(pair for pair in every if pair[0] == axis):
            found = " | ".join(str(counts[profile][name, value]) for profile in plans)
            yield f"| {name} | {value} | {found} |"
    yield f"| cases | | {' | '.join(str(len(cases)) for cases in plans.values())} |"
    seconds = (str(round(estimate(cases))) for cases in plans.values())
    yield f"| seconds, estimated | | {' | '.join(seconds)} |"


def _count(cases: Sequence[Case]) -> Counter[tuple[str, str]]:
    return Counter(
        (name, _spell(name, value))
        for case in cases
        for name, value in values_of(case).items()
        if name in AXES and (case.adapter is not None or name not in _OF_ADAPTERS)
    )


def _spell(name: str, value: Any) -> str:
    if name == "after":
        return "none" if value is None else "an earlier save"
    if isinstance(value, tuple):
        return ", ".join(value) or "none"
    return str(value) if not isinstance(value, bool | None) else json.dumps(value)
