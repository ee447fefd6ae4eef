"""How much of the table of pairs a run has tried, and what no run can try."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from saver_conformance.cases import engines
from saver_conformance.cases.case import Case, Mode
from saver_conformance.cases.pairwise import pairs_in
from saver_conformance.cases.profiles import pairs_of
from saver_conformance.cases.strategies import all_axes, paired, row_of, why_invalid

NO_COMPLETION = "no values of the other axes go with both"
"""Why a pair is unreachable that no rule speaks of."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """Pairs of values of two axes, summed over modes.

    Attributes:
        covered: pairs that stand together in some case that was run.
        possible: pairs that stand together in any case at all.
        unreachable: number of the other pairs by the reason why no case has them.
    """

    covered: int
    possible: int
    unreachable: Mapping[str, int] = field(default_factory=dict)


def measure(modes: Iterable[Mode], run: Iterable[Case], *, wide: bool = False) -> Coverage:
    """The pairs that ``run`` covers in ``modes``, of the last save where there are several.

    Args:
        modes: the modes.
        run: the cases that were run.
        wide: whether pairs with every family and kind of adapter count.
    """
    cases = tuple(run)
    covered = possible = 0
    unreachable: Counter[str] = Counter()
    for mode in modes:
        table = pairs_of(mode, wide=wide)
        axes = paired(all_axes(mode, wide=wide), mode, wide=wide)
        sharing = () if wide else engines.sharing_a_table(mode.engine)
        seen = {
            pair
            for case in cases
            if case.mode.method == mode.method and case.mode.engine in (mode.engine, *sharing)
            # A draw may have a value that the table does not: any class name, for instance.
            for pair in pairs_in({n: v for n, v in row_of(case).items() if v in axes.get(n, ())})
        }
        covered += len(seen)
        possible += table.possible
        unreachable += _unreachable(mode, table.possible, axes)
    return Coverage(covered, possible, dict(unreachable.most_common()))


def _unreachable(mode: Mode, possible: int, axes: Mapping[str, Sequence[Any]]) -> Counter[str]:
    """How many pairs no case of ``mode`` has, by reason."""
    reasons = [
        why_invalid({first: a, second: b}, mode)
        for first, second in combinations(axes, 2)
        for a in axes[first]
        for b in axes[second]
    ]
    found = Counter(filter(None, reasons))
    rest = len(reasons) - found.total() - possible
    return found + Counter({NO_COMPLETION: rest})  # the sum leaves out what is 0
