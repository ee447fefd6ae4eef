"""Draws cases without end, and shrinks the first that breaks a MUST."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from itertools import count

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky

from saver_conformance.cases.case import Case, Mode
from saver_conformance.cases.engine import WORLD_SIZES
from saver_conformance.cases.strategies import NODES, cases, make_case
from saver_conformance.spec import SPEC
from saver_conformance.verdict.verdict import CaseRecord

DRAWS_A_ROUND = 50
"""Cases drawn before Hypothesis starts afresh; it keeps all of a round in memory."""
WORLDS = tuple((size, nodes) for size in WORLD_SIZES for nodes in NODES)
"""Numbers of ranks and machines; a round keeps to one, since worlds take long to start."""
EARLIER = 2
"""Saves into the same folder that may come before the one that is judged."""


class _BrokenError(Exception):
    """The case at hand breaks the clause that is being shrunk."""


class Exploration:
    """Keeps the records of what was drawn, and the smallest case that breaks a MUST."""

    def __init__(
        self,
        run: Callable[[Case], CaseRecord],
        modes: Sequence[Mode],
        waived: Collection[tuple[str, str]] = (),
    ) -> None:
        """Explore.

        Args:
            run: trains, saves and checks one case.
            modes: the modes to draw from.
            waived: clauses that may be broken, each with the name of a mode.
        """
        self.records: dict[Case, CaseRecord] = {}
        self.smallest: Case | None = None
        self._run = run
        self._modes = tuple(modes)
        self._waived = frozenset(waived)
        self._clause = ""

    def run(self, seconds: float | None) -> None:
        """Try each mode's simplest case, then draw until ``seconds`` are over or a MUST is broken.

        Shrinking then takes its time.
        """
        deadline = float("inf") if seconds is None else time.monotonic() + seconds
        # Draws alone may leave a mode out for long.
        for mode in self._modes:
            if self.smallest is None and time.monotonic() < deadline:
                with contextlib.suppress(_BrokenError):
                    self._try(make_case(mode, {}))
        first = secrets.randbits(32)
        for number in count():
            if self.smallest is not None:
                self._simplify_world()
                return
            if time.monotonic() >= deadline:
                return
            self._run_round(first + number, WORLDS[number % len(WORLDS)], deadline)

    def _run_round(self, start: int, world: tuple[int, int], deadline: float) -> None:
        def drawn(mode: Mode) -> st.SearchStrategy[Case]:
            return cases(mode, *world, earlier=EARLIER, probes=True)

        @seed(start)
        @settings(
            max_examples=DRAWS_A_ROUND,
            database=None,
            deadline=None,
            phases=[Phase.generate, Phase.shrink],
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
            verbosity=Verbosity.quiet,
        )
        @given(st.sampled_from(self._modes).flatmap(drawn))
        def attempt(case: Case) -> None:
            if self.smallest is None and time.monotonic() >= deadline:
                return
            self._try(case)

        function: Callable[[], None] = attempt
        # What is left in ``smallest`` is the case that failed last, where shrinking ended.
        with contextlib.suppress(_BrokenError, Flaky):
            function()

    def _simplify_world(self) -> None:
        """Shrink the world of the smallest case, which its round has kept to."""
        smallest = self.smallest
        if smallest is None or smallest.mode.engine == "single":
            return
        for size, nodes in WORLDS:
            if (size, nodes) == (smallest.world_size, smallest.nodes):
                return
            with contextlib.suppress(_BrokenError):
                self._try(_in_world(smallest, size, nodes))
                continue
            return  # it breaks there too

    def _try(self, case: Case) -> None:
        if case not in self.records:
            self.records[case] = self._run(case)
        broken = [
            finding.clause
            for finding in self.records[case].findings
            if SPEC[finding.clause].level == "MUST"
            and (finding.clause, case.mode.name) not in self._waived
        ]
        if not broken:
            return
        self._clause = self._clause or broken[0]
        if self._clause in broken:  # or else a smaller case could be about something else
            self.smallest = case
            raise _BrokenError(self._clause)


def _in_world(case: Case, size: int, nodes: int) -> Case:
    """``case`` and those before it on so many ranks and machines, without replicas."""
    after = _in_world(case.after, size, nodes) if case.after else None
    return replace(case, world_size=size, nodes=nodes, replicas=1, after=after)
