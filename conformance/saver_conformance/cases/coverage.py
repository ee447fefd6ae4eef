"""How much of the tables of pairs a run has tried, and what no run can try."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from typing import Any

from saver_conformance.cases import engines
from saver_conformance.cases.case import Case, Mode
from saver_conformance.cases.method import METHODS
from saver_conformance.cases.pairwise import Row, pairs_in
from saver_conformance.cases.strategies import all_axes, paired, row_of, why_invalid
from saver_conformance.cases.tables import (
    axes_across,
    pairs_across,
    pairs_of,
    row_across,
    why_nowhere,
)

NO_COMPLETION = "no values of the other axes go with both"
"""Why a pair is unreachable that no rule speaks of."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """Pairs of values of two axes, summed over tables.

    Attributes:
        covered: pairs that stand together in some case that was run.
        possible: pairs that stand together in any case at all.
        unreachable: number of the other pairs by the reason why no case has them.
    """

    covered: int
    possible: int
    unreachable: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Pairs:
    """What one table is about.

    Attributes:
        axes: its axes with all their values, those that cannot be trained too.
        possible: the pairs that it covers.
        rows: the values of cases on these axes.
        why: why no case has some values together; empty when one has.
    """

    axes: Mapping[str, Sequence[Any]]
    possible: int
    rows: Iterable[Row]
    why: Callable[[Row], str]

    def covered(self) -> int:
        """How many pairs stand together in some of the rows."""
        # A draw may have a value that the table does not: any class name, for instance.
        known = ({n: v for n, v in row.items() if v in self.axes.get(n, ())} for row in self.rows)
        return len({pair for row in known for pair in pairs_in(row)})

    def unreachable(self) -> Counter[str]:
        """How many pairs no case has, by reason."""
        reasons = [
            self.why({first: a, second: b})
            for first, second in combinations(self.axes, 2)
            for a in self.axes[first]
            for b in self.axes[second]
        ]
        found = Counter(filter(None, reasons))
        rest = len(reasons) - found.total() - self.possible
        return found + Counter({NO_COMPLETION: rest})  # the sum leaves out what is 0


def measure(modes: Iterable[Mode], run: Iterable[Case], *, across: bool = False) -> Coverage:
    """The pairs that ``run`` covers in ``modes``, of the last save where there are several.

    Args:
        modes: the modes.
        run: the cases that were run.
        across: whether the engine is one of the axes, and those that a night's table has count;
            otherwise each mode has a table of its own.
    """
    tables = list((_across if across else _of_each)(tuple(modes), tuple(run)))
    unreachable = sum((table.unreachable() for table in tables), Counter[str]())
    return Coverage(
        sum(table.covered() for table in tables),
        sum(table.possible for table in tables),
        dict(unreachable.most_common()),
    )


def _of_each(modes: tuple[Mode, ...], run: tuple[Case, ...]) -> Iterator[_Pairs]:
    for mode in modes:
        sharing = (mode.engine, *engines.sharing_a_table(mode.engine))
        own = [
            row_of(case)
            for case in run
            if case.mode.method == mode.method and case.mode.engine in sharing
        ]
        axes = paired(all_axes(mode), mode)
        yield _Pairs(axes, pairs_of(mode).possible, own, partial(why_invalid, mode=mode))


def _across(modes: tuple[Mode, ...], run: tuple[Case, ...]) -> Iterator[_Pairs]:
    for method in METHODS:
        own = tuple(mode for mode in modes if mode.method == method)
        if own:
            rows = [row_across(case, own) for case in run if case.mode in own]
            possible = pairs_across(own).possible
            yield _Pairs(axes_across(own), possible, rows, partial(why_nowhere, modes=own))
