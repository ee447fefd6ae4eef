"""Cases one after the other: while one is reloaded and checked, the ranks train the next."""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from saver_conformance import checks
from saver_conformance.case import Case, Engine, Mode
from saver_conformance.judge import Judge, Saved
from saver_conformance.progress import Progress
from saver_conformance.verdict import CaseRecord, Pace

CHECKERS = 2
"""Threads that reload and check."""
BACKLOG = 4
"""Cases that may wait for their check; training waits when there are more."""
FAILURES_A_MODE = 3
"""Cases of a mode in which ranks raise or die before the rest of the mode is skipped."""
HANGS_A_MODE = 1
"""Cases of a mode in which no rank fails but some hang before the rest is skipped."""


class Pipeline:
    """Runs planned cases and keeps the time of each engine."""

    def __init__(self, judge: Judge, progress: Progress) -> None:
        self._judge = judge
        self._progress = progress
        self._records: dict[Case, CaseRecord] = {}
        self._failures: Counter[Mode] = Counter()
        self._hangs: Counter[Mode] = Counter()
        self._seconds: defaultdict[Engine, float] = defaultdict(float)
        self._checked: Counter[Engine] = Counter()

    @property
    def paces(self) -> tuple[Pace, ...]:
        """How fast each engine's cases went."""
        return tuple(
            Pace(engine, count, self._seconds[engine], self._judge.stopwatch.seconds(engine))
            for engine, count in self._checked.items()
        )

    def run(self, planned: Sequence[Case]) -> tuple[CaseRecord, ...]:
        """Run all cases, whatever becomes of each, and return their records in order."""
        waiting: deque[Future[CaseRecord]] = deque()
        with ThreadPoolExecutor(CHECKERS) as pool:
            try:
                for case in planned:
                    with self._clock(case.mode.engine):
                        while len(waiting) > BACKLOG or (waiting and waiting[0].done()):
                            self._finish_checked(waiting.popleft().result())
                        self._advance(case, waiting, pool)
                while waiting:
                    with self._clock(planned[-1].mode.engine):
                        self._finish_checked(waiting.popleft().result())
            except BaseException:
                self._judge.stop()  # else the pool would wait for reloads in progress
                pool.shutdown(cancel_futures=True)
                raise
        return tuple(self._records[case] for case in planned)

    def _advance(
        self, case: Case, waiting: deque[Future[CaseRecord]], pool: ThreadPoolExecutor
    ) -> None:
        """Train and save ``case``, and queue it for its check."""
        if reason := self._reason_to_skip(case.mode):
            self._finish(CaseRecord(case, checks.applicable(case), "skipped", reason))
            return
        self._progress.train(case)
        asked = time.monotonic()
        self._judge.make_ready(case)
        # The start of a world is no time of its cases.
        self._seconds[case.mode.engine] -= time.monotonic() - asked
        saved = self._judge.save(case)
        if isinstance(saved, CaseRecord):
            self._finish(saved)
            return
        self._count_failures(saved)
        waiting.append(pool.submit(self._judge.inspect, saved))

    @contextmanager
    def _clock(self, engine: Engine) -> Iterator[None]:
        """Count the wall-clock time of the block as ``engine``'s."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._seconds[engine] += time.monotonic() - began

    def _finish(self, record: CaseRecord) -> None:
        self._records[record.case] = record
        self._progress.finish(record)

    def _finish_checked(self, record: CaseRecord) -> None:
        if record.status == "run":
            self._checked[record.case.mode.engine] += 1
        self._finish(record)

    def _count_failures(self, saved: Saved) -> None:
        ends = {outcome.status for outcome in saved.outcomes}
        if ends & {"raised", "died"}:
            self._failures[saved.case.mode] += 1
        elif "hung" in ends:
            self._hangs[saved.case.mode] += 1

    def _reason_to_skip(self, mode: Mode) -> str:
        if self._hangs[mode] >= HANGS_A_MODE:
            return f"skipped: the saver hung in {mode}"
        if self._failures[mode] >= FAILURES_A_MODE:
            return f"skipped: ranks failed in {FAILURES_A_MODE} cases of {mode}"
        return ""
