"""Reloads and checks what a save left."""

from __future__ import annotations

import os
import shutil
import time
import traceback
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path

from saver_conformance import checks
from saver_conformance.checks import ReadersAsked, Results
from saver_conformance.execution.case_readers import CaseReaders
from saver_conformance.execution.disk_space import why_no_room
from saver_conformance.execution.saved_case import SavedCase
from saver_conformance.execution.timing import Stopwatch
from saver_conformance.folder.contents import describe, read_contents
from saver_conformance.observation.observation import Crashes, Observation, failed
from saver_conformance.observation.process_diff import OUTPUT, Change, changes
from saver_conformance.observation.reading import Comparison
from saver_conformance.processes.fault_injection import STATES, files_of
from saver_conformance.processes.reloader import Reloader
from saver_conformance.verdict.verdict import CaseRecord


class Inspector:
    """Reloads and checks saved cases; may be called from several threads at once."""

    def __init__(
        self,
        expectation: str,
        reloader: Reloader,
        stopwatch: Stopwatch,
        readers: CaseReaders | None = None,
    ) -> None:
        """Inspect with a module that reads what is expected, and a process that reloads.

        Args:
            expectation: see ``Workload``.
            reloader: reloads what was saved.
            stopwatch: takes the time of each step.
            readers: read what was saved, too; None asks none.
        """
        self._readers = readers
        self._expectation = expectation
        self._reloader = reloader
        self._stopwatch = stopwatch

    def inspect(self, saved: SavedCase) -> CaseRecord:
        """Reload and check what was saved, the earlier saves of its mode too; its files go."""
        record = self._inspect_last(saved)
        if saved.earlier is None:
            return record
        if saved.earlier.case.mode != saved.case.mode:  # its findings are not this mode's
            saved.earlier.remove_files()
            return record
        return _together(self.inspect(saved.earlier), record)

    def _inspect_last(self, saved: SavedCase) -> CaseRecord:
        case = saved.case
        clauses = checks.applicable(case, self._asked(saved))
        try:
            results, comparisons = self._check(saved)
            if results.findings and (lack := why_no_room(saved.folder)):
                return CaseRecord(case, clauses, "error", lack)
        except Exception:
            reason = f"the suite failed while it looked at the save:\n{traceback.format_exc()}"
            return CaseRecord(case, clauses, "error", reason)
        finally:
            shutil.rmtree(saved.folder, ignore_errors=True)
        return CaseRecord(
            case,
            tuple(results.ran) if saved.refused else clauses,
            "run",
            ran=results.ran,
            blocked=results.blocked,
            seconds=time.monotonic() - saved.started,
            failure=saved.failure,
            stopped_by=saved.failure.clauses if saved.failure else (),
            unchanged=saved.before == saved.after and not failed(saved.outcomes),
            comparisons=comparisons,
        )

    def _check(self, saved: SavedCase) -> tuple[Results, tuple[Comparison, ...]]:
        time_of = partial(self._stopwatch.time, saved.case.mode.engine)
        with time_of("read"):
            expected = import_module(self._expectation).read(saved.folder)
        with time_of("reload"):
            is_whole = not failed(saved.outcomes)
            reload = self._reloader.reload(saved.case, saved.folder) if is_whole else None
            crashes = self._identify(saved)
        later = _changed_since(saved) if is_whole else ()  # before readers, who may write there
        comparisons = None
        if self._readers and self._asked(saved) == "in this case":
            with time_of("serve"):
                comparisons = self._readers.compare(saved, self._reloader)
        observation = Observation(
            case=saved.case,
            expected=expected,
            outcomes=saved.outcomes,
            folder=saved.folder / "out",
            before=saved.before,
            after=saved.after,
            umask=_read_umask(),
            reload=reload,
            changes=saved.changes,
            control=saved.control,
            crashes=crashes,
            checkpoints=saved.checkpoints,
            untraced=saved.untraced,
            operations=saved.operations,
            trace=saved.trace,
            memory=saved.memory,
            comparisons=comparisons,
            later=later,
        )
        with time_of("check"):
            return checks.run(observation, self._asked(saved)), comparisons or ()

    def _asked(self, saved: SavedCase) -> ReadersAsked:
        """Whether readers are asked about the saved folder."""
        if self._readers is None:
            return "no"
        is_read = saved.case in self._readers.cases and not failed(saved.outcomes)
        return "in this case" if is_read else "in other cases"

    def _identify(self, saved: SavedCase) -> Crashes | None:
        """The saves with injected faults, and what a loader gets from each folder they left."""
        if saved.crashes is None or saved.crashes.unavailable:
            return saved.crashes
        models = self._reloader.identify(saved.case, saved.folder)
        states = sorted(path.name for path in (saved.folder / STATES).iterdir())
        files = {state: files_of(saved.folder, state) for state in states}
        return replace(saved.crashes, models=models, files=files)


def _changed_since(saved: SavedCase) -> tuple[Change, ...]:
    """What has changed in the files of the output folder since the ranks were done with it."""
    left = {
        path: describe(entry.size, entry.sha256)
        for path, entry in saved.after.items()
        if entry.sha256
    }
    found = changes({OUTPUT: left}, {OUTPUT: read_contents(saved.folder / "out")})
    # What has no digest is a folder, a link or unreadable.
    return tuple(item for item in found if item.name in left or item.name not in saved.after)


def _together(earlier: CaseRecord, last: CaseRecord) -> CaseRecord:
    """The record of ``last``'s case, with what an earlier save of the same mode showed."""
    if earlier.status != "run":
        return replace(earlier, case=last.case, clauses=last.clauses)
    stopped_by = dict.fromkeys((*earlier.stopped_by, *last.stopped_by))
    ran = {
        clause: (*earlier.ran.get(clause, ()), *last.ran.get(clause, ()))
        for clause in (*last.ran, *earlier.ran)
    }
    blocked = {**earlier.blocked, **last.blocked}
    return replace(
        last,
        clauses=tuple(dict.fromkeys((*last.clauses, *earlier.clauses))),
        # Checked means checked at both saves; a finding at one of them is a finding.
        ran={c: findings for c, findings in ran.items() if findings or c not in blocked},
        blocked=blocked,
        seconds=earlier.seconds + last.seconds,
        failure=last.failure or earlier.failure,
        stopped_by=tuple(stopped_by),
    )


def _read_umask() -> int:
    """The process's umask, which the ranks inherit, read without changing it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    umask = os.umask(0o022)
    os.umask(umask)
    return umask
