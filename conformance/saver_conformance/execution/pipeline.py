"""Cases one after the other: while one is reloaded and checked, the ranks train the next."""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager

from saver_conformance import checks
from saver_conformance.cases.case import Case, Mode
from saver_conformance.errors import HarnessFailedError
from saver_conformance.execution.case_runner import CaseRunner
from saver_conformance.execution.progress import Progress
from saver_conformance.execution.saved_case import SavedCase
from saver_conformance.processes import interrupts
from saver_conformance.processes.time_limit import PERIOD
from saver_conformance.verdict.causes import why_skip
from saver_conformance.verdict.failures import FailedSave, Kind
from saver_conformance.verdict.verdict import CaseRecord, Pace

CHECKERS = 2
"""Threads that reload and check."""
BACKLOG = 4
"""Cases that may wait for their check; training waits when there are more."""
FAILURES_A_CAUSE: Mapping[Kind, int] = {"hung": 2, "died": 3}
"""Cases that end so before others with the same cause are skipped; a raise costs nothing."""
FAILURES_A_MODE = 6
"""The same for all causes in a mode: whatever the reason, its other cases are skipped then."""
INTERRUPTED = "not run: the run was interrupted"
"""Why cases were not run that a signal came before."""

Waiting = deque[tuple[SavedCase, Future[CaseRecord]]]


class Pipeline:
    """Runs planned cases and keeps the time of each engine."""

    def __init__(self, runner: CaseRunner, progress: Progress) -> None:
        self._runner = runner
        self._progress = progress
        self._records: dict[Case, CaseRecord] = {}
        self._ruined: defaultdict[Mode, list[FailedSave]] = defaultdict(list)
        self._saved: defaultdict[Mode, list[Case]] = defaultdict(list)
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._checked: Counter[str] = Counter()
        self.interrupted = False
        """Whether a signal, or a failure of the harness, ended the run before the last case."""
        self.failure: HarnessFailedError | None = None
        """The failure that ended the run, once something had been checked."""

    @property
    def paces(self) -> tuple[Pace, ...]:
        """How fast each engine's cases went."""
        return tuple(
            Pace(engine, count, self._seconds[engine], self._runner.stopwatch.seconds(engine))
            for engine, count in self._checked.items()
        )

    def run(self, planned: Sequence[Case]) -> tuple[CaseRecord, ...]:
        """Run all cases, whatever becomes of each, and return their records in order.

        A KeyboardInterrupt ends it: what has been checked until then counts, the rest was not run.
        So does a failure of the harness, unless nothing has been checked, which raises it.
        """
        waiting: Waiting = deque()
        with ThreadPoolExecutor(CHECKERS) as pool:
            try:
                self._run(planned, waiting, pool)
            except BaseException as error:
                with interrupts.held():
                    done = [pair for pair in waiting if pair[1].done()]
                    self._runner.stop()  # else the pool would wait for reloads in progress
                    pool.shutdown(cancel_futures=True)
                if isinstance(error, HarnessFailedError) and self._checked:
                    self.failure = error
                elif not isinstance(error, KeyboardInterrupt):
                    raise
                self._interrupt(planned, done)
        return tuple(self._records[case] for case in planned)

    def _run(self, planned: Sequence[Case], waiting: Waiting, pool: ThreadPoolExecutor) -> None:
        for case in planned:
            interrupts.check()
            with self._clock(case.mode.engine):
                while len(waiting) > BACKLOG or (waiting and waiting[0][1].done()):
                    self._finish_checked(*waiting.popleft())
                self._advance(case, waiting, pool)
        while waiting:
            interrupts.check()
            with self._clock(planned[-1].mode.engine):
                self._finish_checked(*waiting.popleft())

    def _interrupt(
        self, planned: Sequence[Case], done: Sequence[tuple[SavedCase, Future[CaseRecord]]]
    ) -> None:
        self.interrupted = True
        for saved, checked in done:
            record = None if checked.exception() else checked.result()
            # A reload that the signal hit as well is no failure of the harness, and what would have
            # been tried again on new ranks is no finding.
            if record is None or record.status == "error":
                continue
            if not (saved.is_doubtful and record.findings):
                self._records.setdefault(record.case, record)
        for case in planned:
            if case not in self._records:
                clauses = checks.applicable(case)
                self._records[case] = CaseRecord(case, clauses, "skipped", INTERRUPTED)

    def _advance(self, case: Case, waiting: Waiting, pool: ThreadPoolExecutor) -> None:
        """Train and save ``case``, and queue it for its check."""
        if skipped := self._skip(case):
            self._finish(skipped)
            return
        self._progress.train(case)
        asked = time.monotonic()
        self._runner.make_ready(case)
        # The start of a world is no time of its cases.
        self._seconds[case.mode.engine] -= time.monotonic() - asked
        saved = self._runner.save(case)
        self._remember(saved)
        if isinstance(saved, CaseRecord):
            self._finish(saved)
            return
        waiting.append((saved, pool.submit(self._runner.inspect, saved)))

    @contextmanager
    def _clock(self, engine: str) -> Iterator[None]:
        """Count the wall-clock time of the block as ``engine``'s."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._seconds[engine] += time.monotonic() - began

    def _finish(self, record: CaseRecord) -> None:
        self._records[record.case] = record
        self._progress.finish(record)

    def _finish_checked(self, saved: SavedCase, checked: Future[CaseRecord]) -> None:
        while not checked.done():
            interrupts.check()
            wait([checked], PERIOD)
        record = self._runner.confirm(saved, checked.result())
        if record.status == "run":
            self._checked[record.case.mode.engine] += 1
        self._finish(record)

    def _remember(self, saved: SavedCase | CaseRecord) -> None:
        """Learn from how the save ended."""
        if saved.failure is None:
            if isinstance(saved, SavedCase):
                for case in saved.case.saves():
                    self._saved[case.mode].append(case)
        elif saved.failure.kind in FAILURES_A_CAUSE:
            self._ruined[saved.failure.case.mode].append(saved.failure)

    def _skip(self, case: Case) -> CaseRecord | None:
        """The record of ``case`` when it is not to be tried; None when it is."""
        for save in case.saves():
            ruined = self._ruined[save.mode]
            cause = why_skip(save, ruined, self._saved[save.mode], FAILURES_A_CAUSE)
            if cause is not None:
                reason, clauses = f"skipped: {cause.text}", cause.clauses
            elif len(ruined) >= FAILURES_A_MODE:
                reason = (
                    f"skipped: the saver hung or died in {len(ruined)} cases of {save.mode}, for "
                    "several reasons; no more of its cases are tried"
                )
                clauses = tuple(sorted({clause for item in ruined for clause in item.clauses}))
            else:
                continue
            every = checks.applicable(case)
            return CaseRecord(case, every, "skipped", reason, stopped_by=clauses)
        return None
