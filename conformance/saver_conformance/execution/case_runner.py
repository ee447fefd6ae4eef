"""Has a case trained and saved by a world, then reloaded and checked."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Hashable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Self

from saver_conformance import checks
from saver_conformance.cases.case import Case, Mode
from saver_conformance.claims.checkpoint_claim import CheckpointClaim
from saver_conformance.errors import HarnessFailedError
from saver_conformance.execution.case_readers import CaseReaders
from saver_conformance.execution.disk_space import why_no_room, why_no_space
from saver_conformance.execution.inspection import Inspector
from saver_conformance.execution.kept_output import AFTER, BEFORE, KeptOutput
from saver_conformance.execution.progress import Progress, Silent
from saver_conformance.execution.saved_case import SavedCase
from saver_conformance.execution.timing import Stopwatch
from saver_conformance.execution.workload import Workload
from saver_conformance.execution.worlds import Worlds, is_spoilt, read_changes
from saver_conformance.folder import node_disks
from saver_conformance.folder.layout import scan
from saver_conformance.observation.observation import Crashes, Entry, RankOutcome, failed
from saver_conformance.processes import interrupts
from saver_conformance.processes.checkpoint_runs import run_checkpoints
from saver_conformance.processes.control_run import run_control
from saver_conformance.processes.fault_injection import CRASH_POINTS, inject_faults
from saver_conformance.processes.file_events import read_trace
from saver_conformance.processes.file_trace import Tracers
from saver_conformance.processes.memory import MemoryWatch
from saver_conformance.processes.output_lines import Listener
from saver_conformance.processes.protocol import Answer
from saver_conformance.processes.reloader import Reloader
from saver_conformance.processes.world import SAVE_LIMIT, World, start_servers, without_accelerator
from saver_conformance.verdict.failures import CLAUSES
from saver_conformance.verdict.verdict import CaseRecord


class CaseRunner:
    """Worlds, a reloader and a scratch folder, from the first case to the last.

    Create and use it in one thread that outlives it: the kernel ends the ranks with the thread
    that started them. Only ``inspect`` may be called from others.
    """

    def __init__(
        self,
        saver: str,
        *,
        workload: Workload | None = None,
        save_limit: float = SAVE_LIMIT,
        crash_points: int = CRASH_POINTS,
        progress: Progress | None = None,
        listen: Listener | None = None,
        keep: KeptOutput | None = None,
        readers: CaseReaders | None = None,
        checkpoints: CheckpointClaim | None = None,
    ) -> None:
        """Run cases of the saver at the address ``saver``; nothing is started yet."""
        workload = workload or Workload()
        self._listen = listen
        self._keep = keep
        self._crash_points = crash_points
        self._checkpoints = checkpoints
        self._save_limit = save_limit
        with interrupts.held():
            self._scratch = Path(tempfile.mkdtemp(prefix="saver-conformance-"))
        self._count = 0
        self._confirmed: set[tuple[Mode, Hashable]] = set()
        try:
            self._rank_server, self._reload_server = start_servers(
                workload.prepare, workload.reload, self._scratch
            )
        except BaseException:
            shutil.rmtree(self._scratch, ignore_errors=True)
            raise
        self._reloader = Reloader(
            workload.reload, self._reload_server, without_accelerator(self._scratch)
        )
        self.stopwatch = Stopwatch()
        self._worlds = Worlds(
            saver,
            workload,
            self._rank_server,
            self._reloader,
            self._scratch,
            self._make_folder,
            save_limit=save_limit,
            progress=progress or Silent(),
        )
        self._readers = readers
        self._inspector = Inspector(workload.expectation, self._reloader, self.stopwatch, readers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End every process and remove every file."""
        with interrupts.held():
            self._reloader.stop()
            if self._readers is not None:
                self._readers.stop()
            self._worlds.stop()
            self._rank_server.stop()
            self._reload_server.stop()
            shutil.rmtree(self._scratch, ignore_errors=True)

    def run(self, case: Case) -> CaseRecord:
        """Train, save, reload and check one case."""
        saved = self.save(case)
        return saved if isinstance(saved, CaseRecord) else self.confirm(saved, self.inspect(saved))

    def inspect(self, saved: SavedCase) -> CaseRecord:
        """Reload and check what was saved, the earlier saves of its mode too; thread-safe."""
        return self._inspector.inspect(saved)

    def confirm(self, saved: SavedCase, record: CaseRecord) -> CaseRecord:
        """``record``, or that of the same case on new ranks where it may be about the old ones.

        A saver that raises may leave something behind on the ranks. What is found on them later
        counts when it has been found in the same mode on ranks without a past.
        """
        found = {(record.case.mode, clause) for clause, there in record.ran.items() if there}
        if record.failure is not None:  # known by more than its clause
            found -= {(record.case.mode, clause) for clause in CLAUSES.values()}
        if not saved.is_doubtful:
            self._confirmed |= found
        elif record.status == "error" or not found <= self._confirmed:
            self._worlds.discard(record.case)
            return self.run(record.case)
        return record

    def make_ready(self, case: Case) -> None:
        """Have a world for ``case``, with the saver imported and the harness known to work.

        Raises:
            UnknownSaverError: there is no such saver.
            HarnessFailedError: the ranks do not start, or fail at a save that does nothing.
        """
        if not self._worlds.has(case):
            with self.stopwatch.time(case.mode.engine, "start"):
                self._worlds.start(case)

    def save(self, case: Case) -> SavedCase | CaseRecord:
        """Train ``case`` and call the saver; a record when it did not come to that.

        The saves that the case comes after are made first, into the same folder.
        """
        if case.after is None:
            return self.save_onto(None, case)
        earlier = self.save(case.after)
        if isinstance(earlier, SavedCase) and failed(earlier.outcomes):
            earlier = self.inspect(earlier)
        if isinstance(earlier, CaseRecord):
            return replace(earlier, case=case, clauses=checks.applicable(case))
        saved = self.save_onto(earlier.folder / "out", case)
        if isinstance(saved, CaseRecord):
            earlier.remove_files()
            return saved
        return replace(saved, earlier=earlier)

    def save_onto(self, left: Path | None, case: Case) -> SavedCase | CaseRecord:
        """As ``save``, into a copy of the folder that an earlier save ``left``, if there is one."""
        self.make_ready(case)
        if self._worlds.is_used(case):
            if (again := self._save_again(left, case)) is not None:
                return again
            self._worlds.discard(case)
            self.make_ready(case)
        try:
            saved = self._save_once(left, case)
        except (HarnessFailedError, OSError):
            if not (lack := why_no_room(self._scratch)):
                raise
            self._worlds.discard(case)
            return CaseRecord(case, checks.applicable(case), "error", lack)
        if isinstance(saved, SavedCase) and saved.failure is not None:
            self._confirmed.add((case.mode, saved.failure.name))
        return saved

    def _save_again(self, left: Path | None, case: Case) -> SavedCase | None:
        """As ``_save_once``, on ranks on which the saver has raised; None when that may show."""
        try:
            saved = self._save_once(left, case)
        except (HarnessFailedError, OSError):
            return None
        if isinstance(saved, CaseRecord):
            return None
        known = saved.failure is None or (case.mode, saved.failure.name) in self._confirmed
        if known and not (saved.control and failed(saved.control.outcomes)):
            return replace(saved, used=True)
        shutil.rmtree(saved.folder, ignore_errors=True)
        return None

    def _save_once(self, left: Path | None, case: Case) -> SavedCase | CaseRecord:
        world, started = self._worlds.of(case), time.monotonic()
        folder = self._make_folder()
        output, time_of = folder / "out", partial(self.stopwatch.time, case.mode.engine)
        if left is not None:
            shutil.copytree(left, output, symlinks=True)
        with time_of("train"):
            answers = world.prepare(case, folder)
        if any(answer.status != "returned" for answer in answers):
            shutil.rmtree(folder, ignore_errors=True)
            return self._not_prepared(case, answers)
        self._keep_copy(output, BEFORE)
        before = _scan(output)
        crashes = self._inject_faults(world, case, folder)
        tracers = Tracers(world.pids, folder)
        untraced = tracers.attach() if case.probe == "file_trace" else "the case asks for no trace"
        memory = MemoryWatch(world.pids if case.probe == "memory" else ())
        with time_of("save"), memory:
            outcomes = world.save(self._worlds.saver, self._save_limit, self._listen)
        tracers.detach()
        if lack := _why_no_space(world, folder, outcomes):
            self._worlds.discard(case)
            shutil.rmtree(folder, ignore_errors=True)
            return CaseRecord(case, checks.applicable(case), "error", lack)
        if failed(outcomes):
            self._worlds.keep_if_usable(case, outcomes)  # first: ranks that hang may still write
        self._keep_copy(output, AFTER)
        with time_of("compare"):
            after = _scan(output)
        saved = SavedCase(case, folder, before, after, outcomes, started, crashes)
        if failed(outcomes):
            return saved
        if not untraced:  # before the folder for temporary files goes, with the ranks
            saved = replace(saved, trace=read_trace(tracers.logs, output))
        saved = self._look_at_ranks(world, saved)
        if case.disks == "own" and node_disks.bring(folder):
            saved = replace(saved, after=_scan(output))
        operations = () if untraced else tracers.read(output)
        return replace(saved, untraced=untraced, operations=operations, memory=memory.growth)

    def _inject_faults(self, world: World, case: Case, folder: Path) -> Crashes | None:
        if case.probe != "fault_injection":
            return None
        with self.stopwatch.time(case.mode.engine, "crash"):
            saver, limit = self._worlds.saver, self._save_limit
            return inject_faults(world, saver, limit, folder, points=self._crash_points)

    def _look_at_ranks(self, world: World, saved: SavedCase) -> SavedCase:
        """``saved``, and what it changed on the ranks, which are ended if others would notice."""
        case, output = saved.case, saved.folder / "out"
        time_of, control = partial(self.stopwatch.time, case.mode.engine), None
        checkpoints = None
        with time_of("compare"):
            changes = read_changes(world.compare())
        if case.probe == "control_run" and output.is_dir():
            with time_of("go on"):
                control = run_control(
                    world, self._worlds.saver, self._save_limit, case, saved.folder
                )
        if case.probe == "checkpoints":
            with time_of("checkpoints"):
                checkpoints = run_checkpoints(
                    world, self._checkpoints, case, saved.folder, self._crash_points
                )
        spoilt = is_spoilt(changes) or (control is not None and failed(control.outcomes))
        with time_of("end"):
            reusable = not spoilt and world.close()
        if not reusable:
            self._worlds.discard(case)  # else the next case would train under what this save left
        return replace(saved, changes=changes, control=control, checkpoints=checkpoints)

    def _not_prepared(self, case: Case, answers: tuple[Answer, ...]) -> CaseRecord:
        clauses = checks.applicable(case)
        if all(answer.status == "unavailable" for answer in answers):
            return CaseRecord(case, clauses, "unavailable", answers[0].detail)
        self._worlds.discard(case)
        if lack := why_no_room(self._scratch):
            return CaseRecord(case, clauses, "error", lack)
        detail = "\n".join(
            f"rank {rank} {answer.status}\n{answer.detail}"
            for rank, answer in enumerate(answers)
            if answer.status != "returned"
        )
        return CaseRecord(case, clauses, "error", f"the case could not be trained:\n{detail}")

    def _make_folder(self) -> Path:
        self._count += 1
        folder = self._scratch / f"case-{self._count}"
        folder.mkdir()
        return folder

    def _keep_copy(self, output: Path, name: str) -> None:
        if self._keep is not None:
            self._keep.keep(output, name)


def _why_no_space(world: World, folder: Path, outcomes: Sequence[RankOutcome]) -> str:
    """What the disk lacked for the save; empty when that is no question."""
    if lack := why_no_room(folder):
        return lack
    places = (world.folder, Path("/dev/shm"), Path.cwd())
    return why_no_space([outcome.detail for outcome in outcomes if outcome.detail], places)


def _scan(folder: Path) -> dict[str, Entry]:
    """What lies in ``folder``; nothing when the saver made something else of it."""
    return scan(folder) if folder.is_dir() else {}
