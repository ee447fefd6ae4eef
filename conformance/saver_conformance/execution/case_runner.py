"""Has a case trained and saved by a world, reloads it, and runs the checks."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
import traceback
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Self

from saver_conformance import checks
from saver_conformance.cases.case import Case, Mode, WorldKey
from saver_conformance.cases.strategies import make_case
from saver_conformance.errors import HarnessFailedError, UnknownSaverError
from saver_conformance.execution import preflight
from saver_conformance.execution.disk_space import why_no_room, why_no_space
from saver_conformance.execution.kept_output import AFTER, BEFORE, KeptOutput
from saver_conformance.execution.progress import Progress, Silent
from saver_conformance.execution.timing import Stopwatch
from saver_conformance.folder.layout import scan
from saver_conformance.observation.file_operation import FileOperation
from saver_conformance.observation.observation import (
    ControlRun,
    Crashes,
    Entry,
    Observation,
    RankOutcome,
    failed,
)
from saver_conformance.observation.process_diff import Change
from saver_conformance.processes import interrupts
from saver_conformance.processes.control_run import run_control
from saver_conformance.processes.devices import count_accelerators
from saver_conformance.processes.fault_injection import (
    CRASH_POINTS,
    STATES,
    files_of,
    inject_faults,
)
from saver_conformance.processes.file_trace import Tracers
from saver_conformance.processes.operators import run_operators
from saver_conformance.processes.output_lines import Listener
from saver_conformance.processes.protocol import Answer
from saver_conformance.processes.reload_server import Reloader
from saver_conformance.processes.world import SAVE_LIMIT, World
from saver_conformance.verdict.failures import CLAUSES, FailedSave, failure_of
from saver_conformance.verdict.verdict import CaseRecord

MAX_RANKS = 16
"""Processes that are kept up; worlds that came first are stopped when there would be more."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Modules that train and reload; other ones than the default serve tests of the runner.

    Attributes:
        prepare: has ``prepare(case, folder)``, called on every rank.
        expectation: has ``read(folder)``, called by the suite.
        reload: has ``reload(case, folder)``, called in a fresh process.
        process_group: whether worlds of several ranks join a process group.
        operators: is run, as a program, before the first world of a DeepSpeed engine starts; empty
            for none.
    """

    prepare: str = "saver_conformance.workload.prepare"
    expectation: str = "saver_conformance.workload.expectation"
    reload: str = "saver_conformance.workload.reload"
    process_group: bool = True
    operators: str = "saver_conformance.processes.compile_operators"


@dataclass(frozen=True, slots=True)
class Saved:
    """A case after its save, not yet looked at.

    Attributes:
        case: the case.
        folder: its scratch folder.
        before: what lay in the output folder before the save.
        after: what lay there after it.
        outcomes: how the saver ended on each rank.
        started: when training began, on the monotonic clock.
        changes: for each rank what the save changed in its process; None when a rank failed.
        control: None when the case asks for none, or when a rank failed.
        crashes: None when the case asks for none.
        untraced: why the ranks were not traced.
        operations: for each rank what it did to files.
        earlier: the save into the same folder before this one, if the case has one.
        used: whether it was made by ranks on which the saver had raised before; what it left on
            them may be what is seen.
    """

    case: Case
    folder: Path
    before: Mapping[str, Entry]
    after: Mapping[str, Entry]
    outcomes: tuple[RankOutcome, ...]
    started: float
    changes: tuple[tuple[Change, ...], ...] | None
    control: ControlRun | None
    crashes: Crashes | None
    untraced: str = ""
    operations: tuple[tuple[FileOperation, ...], ...] = ()
    earlier: Saved | None = None
    used: bool = False

    @property
    def failure(self) -> FailedSave | None:
        """How the save failed; None when every rank returned."""
        return failure_of(self.case, self.outcomes)

    @property
    def is_doubtful(self) -> bool:
        """Whether this save or one before it was made by such ranks."""
        return self.used or (self.earlier is not None and self.earlier.is_doubtful)


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
    ) -> None:
        """Judge the saver at the address ``saver``; nothing is started yet."""
        self._saver = saver
        self._progress = progress or Silent()
        self._listen = listen
        self._keep = keep
        self._crash_points = crash_points
        self._workload = workload or Workload()
        self._save_limit = save_limit
        with interrupts.held():
            self._scratch = Path(tempfile.mkdtemp(prefix="saver-conformance-"))
        self._worlds: dict[WorldKey, World] = {}
        self._proven: set[WorldKey] = set()
        self._used: set[WorldKey] = set()
        self._confirmed: set[tuple[Mode, Hashable]] = set()
        self._operators: set[bool] = set()
        try:
            self._reloader = Reloader(self._workload.reload, self._scratch)
        except BaseException:
            shutil.rmtree(self._scratch, ignore_errors=True)
            raise
        self._count = 0
        self.stopwatch = Stopwatch()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End every process and remove every file."""
        with interrupts.held():
            self._reloader.stop()
            for world in self._worlds.values():
                world.stop()
            self._worlds.clear()
            shutil.rmtree(self._scratch, ignore_errors=True)

    def run(self, case: Case) -> CaseRecord:
        """Train, save, reload and check one case."""
        saved = self.save(case)
        return saved if isinstance(saved, CaseRecord) else self.confirm(saved, self.inspect(saved))

    def confirm(self, saved: Saved, record: CaseRecord) -> CaseRecord:
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
            self._discard(_key_of(record.case))
            return self.run(record.case)
        return record

    def make_ready(self, case: Case) -> None:
        """Have a world for ``case``, with the saver imported and the harness known to work.

        Raises:
            UnknownSaverError: there is no such saver.
            HarnessFailedError: the ranks do not start, or fail at a save that does nothing.
        """
        key = _key_of(case)
        if key in self._worlds:
            return
        while self._worlds and sum(k.size for k in self._worlds) + key.size > MAX_RANKS:
            self._discard(next(iter(self._worlds)))
        with self.stopwatch.time(case.mode.engine, "start"):
            self._build_operators(key)
            with interrupts.held():
                world = self._worlds[key] = World(
                    key,
                    prepare=self._workload.prepare,
                    process_group=self._workload.process_group,
                    scratch=self._scratch,
                )
            # First, so that a saver that cannot be imported is told at once.
            _expect_loaded(world.load(self._saver), self._saver)
            world.join()
            if key not in self._proven:
                self._prove(world, case)
                self._proven.add(key)

    def save(self, case: Case) -> Saved | CaseRecord:
        """Train ``case`` and call the saver; a record when it did not come to that.

        The saves that the case comes after are made first, into the same folder.
        """
        if case.after is None:
            return self.save_onto(None, case)
        earlier = self.save(case.after)
        if isinstance(earlier, Saved) and failed(earlier.outcomes):
            earlier = self.inspect(earlier)
        if isinstance(earlier, CaseRecord):
            return replace(earlier, case=case, clauses=checks.applicable(case))
        saved = self.save_onto(earlier.folder / "out", case)
        if isinstance(saved, CaseRecord):
            _forget(earlier)
            return saved
        return replace(saved, earlier=earlier)

    def save_onto(self, left: Path | None, case: Case) -> Saved | CaseRecord:
        """As ``save``, into a copy of the folder that an earlier save ``left``, if there is one."""
        self.make_ready(case)
        key = _key_of(case)
        if key in self._used:
            if (again := self._save_again(left, case)) is not None:
                return again
            self._discard(key)
            self.make_ready(case)
        try:
            saved = self._save_once(left, case)
        except (HarnessFailedError, OSError):
            if not (lack := why_no_room(self._scratch)):
                raise
            self._discard(key)
            return CaseRecord(case, checks.applicable(case), "error", lack)
        if isinstance(saved, Saved) and saved.failure is not None:
            self._confirmed.add((case.mode, saved.failure.name))
        return saved

    def _save_again(self, left: Path | None, case: Case) -> Saved | None:
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

    def _save_once(self, left: Path | None, case: Case) -> Saved | CaseRecord:
        key = _key_of(case)
        world, folder, started = self._worlds[key], self._make_folder(), time.monotonic()
        if left is not None:
            shutil.copytree(left, folder / "out", symlinks=True)
        time_of = partial(self.stopwatch.time, case.mode.engine)
        with time_of("train"):
            answers = world.prepare(case, folder)
        if any(answer.status != "returned" for answer in answers):
            shutil.rmtree(folder, ignore_errors=True)
            return self._not_prepared(key, case, answers)
        output = folder / "out"
        self._keep_copy(output, BEFORE)
        before, crashes = _scan(output), None
        if case.probe == "fault_injection":
            with time_of("crash"):
                crashes = inject_faults(
                    world, self._saver, self._save_limit, folder, points=self._crash_points
                )
        tracers = Tracers(world.pids, folder)
        untraced = tracers.attach() if case.probe == "file_trace" else "the case asks for no trace"
        with time_of("save"):
            outcomes = world.save(self._saver, self._save_limit, self._listen)
        tracers.detach()
        if lack := self._why_no_space(world, folder, outcomes):
            self._discard(key)
            shutil.rmtree(folder, ignore_errors=True)
            return CaseRecord(case, checks.applicable(case), "error", lack)
        if failed(outcomes):
            if not self._is_usable(world, outcomes):
                self._discard(key)  # before looking: ranks that hang may still write
            else:
                self._used.add(key)
            self._keep_copy(output, AFTER)
            return Saved(
                case, folder, before, _scan(output), outcomes, started, None, None, crashes
            )
        self._keep_copy(output, AFTER)
        with time_of("compare"):
            after, changes, control = _scan(output), _read_changes(world.compare()), None
        if case.probe == "control_run" and output.is_dir():
            with time_of("go on"):
                control = run_control(world, self._saver, self._save_limit, case, folder)
        spoilt = _is_spoilt(changes) or (control is not None and failed(control.outcomes))
        with time_of("end"):
            reusable = not spoilt and world.close()
        if not reusable:
            self._discard(key)  # else the next case would train under what this save left
        operations = () if untraced else tracers.read(output)
        return Saved(
            *(case, folder, before, after, outcomes, started, changes, control, crashes),
            untraced=untraced,
            operations=operations,
        )

    def _is_usable(self, world: World, outcomes: Sequence[RankOutcome]) -> bool:
        """Whether ranks on which the saver raised can take the next case."""
        if any(outcome.status not in ("returned", "raised") for outcome in outcomes):
            return False
        if not world.meet():
            return False
        answers = world.compare()
        if any(answer.status != "returned" for answer in answers):
            return False
        return not _is_spoilt(_read_changes(answers)) and world.close()

    def _why_no_space(self, world: World, folder: Path, outcomes: Sequence[RankOutcome]) -> str:
        """What the disk lacked for the save; empty when that is no question."""
        if lack := why_no_room(folder):
            return lack
        places = (world.folder, Path("/dev/shm"), Path.cwd())
        return why_no_space([outcome.detail for outcome in outcomes if outcome.detail], places)

    def _build_operators(self, key: WorldKey) -> None:
        """Have what DeepSpeed would compile in the ranks compiled, once."""
        cpu = count_accelerators() < key.size
        if key.family != "deepspeed" or cpu in self._operators or not self._workload.operators:
            return
        run_operators(self._workload.operators, self._progress.note, self._scratch, cpu=cpu)
        self._operators.add(cpu)

    def inspect(self, saved: Saved) -> CaseRecord:
        """Reload and check what was saved, the earlier saves of its mode too; thread-safe."""
        record = self._inspect(saved)
        if saved.earlier is None:
            return record
        if saved.earlier.case.mode != saved.case.mode:  # its findings are not this mode's
            _forget(saved.earlier)
            return record
        return _together(self.inspect(saved.earlier), record)

    def _inspect(self, saved: Saved) -> CaseRecord:
        case = saved.case
        time_of = partial(self.stopwatch.time, case.mode.engine)
        try:
            with time_of("read"):
                expected = import_module(self._workload.expectation).read(saved.folder)
            with time_of("reload"):
                reload = (
                    None if failed(saved.outcomes) else self._reloader.reload(case, saved.folder)
                )
                crashes = self._identify(saved)
            observation = Observation(
                case=case,
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
                untraced=saved.untraced,
                operations=saved.operations,
            )
            with time_of("check"):
                results = checks.run(observation)
            if results.findings and (lack := why_no_room(saved.folder)):
                return CaseRecord(case, checks.applicable(case), "error", lack)
        except Exception:
            reason = f"the suite failed while it looked at the save:\n{traceback.format_exc()}"
            return CaseRecord(case, checks.applicable(case), "error", reason)
        finally:
            shutil.rmtree(saved.folder, ignore_errors=True)
        return CaseRecord(
            case,
            checks.applicable(case),
            "run",
            ran=results.ran,
            blocked=results.blocked,
            seconds=time.monotonic() - saved.started,
            failure=saved.failure,
            stopped_by=saved.failure.clauses if saved.failure else (),
            unchanged=saved.before == saved.after and not failed(saved.outcomes),
        )

    def _identify(self, saved: Saved) -> Crashes | None:
        """The disturbed saves with what a loader gets from each folder that they left."""
        if saved.crashes is None or saved.crashes.unavailable:
            return saved.crashes
        models = self._reloader.identify(saved.case, saved.folder)
        states = sorted(path.name for path in (saved.folder / STATES).iterdir())
        files = {state: files_of(saved.folder, state) for state in states}
        return replace(saved.crashes, models=models, files=files)

    def _prove(self, world: World, case: Case) -> None:
        """Take the simplest case of ``case``'s engine through all steps but the saver's own."""
        simplest = make_case(
            Mode("full", case.mode.engine), {}, world_size=case.world_size, nodes=case.nodes
        )
        folder = self._make_folder()
        _expect_loaded(world.load(preflight.ADDRESS), preflight.ADDRESS)
        answers = world.prepare(simplest, folder)
        if all(answer.status == "unavailable" for answer in answers):
            return  # the cases will say so
        for rank, answer in enumerate(answers):
            if answer.status != "returned":
                raise HarnessFailedError(
                    f"the preflight case {simplest.to_json()} could not be trained: "
                    f"rank {rank} {answer.status}\n{answer.detail}"
                )
        for outcome in world.save(preflight.ADDRESS, self._save_limit):
            if outcome.status != "returned":
                raise HarnessFailedError(
                    f"a save that does nothing {outcome.status} on rank {outcome.rank}\n"
                    f"{outcome.detail}"
                )
        if not world.close():
            raise HarnessFailedError("the preflight case could not be ended")
        self._reloader.reload(simplest, folder)  # raises when no process comes up

    def _not_prepared(self, key: WorldKey, case: Case, answers: tuple[Answer, ...]) -> CaseRecord:
        clauses = checks.applicable(case)
        if all(answer.status == "unavailable" for answer in answers):
            return CaseRecord(case, clauses, "unavailable", answers[0].detail)
        self._discard(key)
        if lack := why_no_room(self._scratch):
            return CaseRecord(case, clauses, "error", lack)
        detail = "\n".join(
            f"rank {rank} {answer.status}\n{answer.detail}"
            for rank, answer in enumerate(answers)
            if answer.status != "returned"
        )
        return CaseRecord(case, clauses, "error", f"the case could not be trained:\n{detail}")

    def _keep_copy(self, output: Path, name: str) -> None:
        if self._keep is not None:
            self._keep.keep(output, name)

    def _discard(self, key: WorldKey) -> None:
        self._used.discard(key)
        with interrupts.held():
            if key in self._worlds:
                self._worlds.pop(key).stop()

    def _make_folder(self) -> Path:
        self._count += 1
        folder = self._scratch / f"case-{self._count}"
        folder.mkdir()
        return folder


def _key_of(case: Case) -> WorldKey:
    return WorldKey.of(case.mode, case.world_size, case.nodes)


def _is_spoilt(changes: tuple[tuple[Change, ...], ...]) -> bool:
    """Whether the next case would train under what a save left."""
    return any(change.area == "process" for rank in changes for change in rank)


def _forget(saved: Saved) -> None:
    """Remove what a save and those before it left."""
    shutil.rmtree(saved.folder, ignore_errors=True)
    if saved.earlier is not None:
        _forget(saved.earlier)


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


def _expect_loaded(answers: tuple[Answer, ...], saver: str) -> None:
    for rank, answer in enumerate(answers):
        if answer.status == "unavailable":
            raise UnknownSaverError(answer.detail)
        if answer.status != "returned":
            raise UnknownSaverError(
                f"importing {saver} {answer.status} on rank {rank}\n{answer.detail}"
            )


def _read_changes(answers: tuple[Answer, ...]) -> tuple[tuple[Change, ...], ...]:
    for rank, answer in enumerate(answers):
        if answer.status != "returned":
            raise HarnessFailedError(
                f"rank {rank} {answer.status} when asked what had changed\n{answer.detail}"
            )
    return tuple(tuple(Change(**plain) for plain in json.loads(a.detail)) for a in answers)


def _scan(folder: Path) -> dict[str, Entry]:
    """What lies in ``folder``; nothing when the saver made something else of it."""
    return scan(folder) if folder.is_dir() else {}


def _read_umask() -> int:
    """The process's umask, which the ranks inherit, read without changing it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    umask = os.umask(0o022)
    os.umask(umask)
    return umask
