"""Kills saves and makes their system calls fail, and keeps what is then in the folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from saver_conformance.errors import HarnessFailedError
from saver_conformance.folder.layout import scan
from saver_conformance.observation.observation import Crashes, Fault, RankOutcome, failed
from saver_conformance.processes import strace
from saver_conformance.processes.file_events import read_trace
from saver_conformance.processes.forked_save import ForkedResult
from saver_conformance.processes.strace import Call
from saver_conformance.processes.world import World

CRASH_POINTS = 20
"""Points of a save at which it is killed."""
FAILURES = (("ENOSPC", 2), ("EIO", 1), ("EACCES", 1))
"""Errors of system calls, with the number of points on each rank at which it is made to happen."""
ATTEMPTS = 2
"""How often a kill is tried: now and then a thread makes its calls in another order."""
SURVIVAL = 2.0
"""Seconds that the other ranks go on for at most, where one alone is killed."""
FAILURE_GRACE = 5.0
"""Seconds after which the other ranks count as hanging, once one has raised."""

STATES = "states"
"""Folder, in the case's, that keeps the output folder as each save with a fault left it."""


def inject_faults(world: World, saver: str, limit: float, folder: Path, points: int) -> Crashes:
    """Save the prepared case in forks: whole, killed at many points, with failing calls.

    The output folder is afterwards what it was.

    Args:
        world: ranks that are ready for the saver.
        saver: the saver's address.
        limit: seconds after which a save counts as hanging.
        folder: the case's scratch folder.
        points: how many of the save's system calls it is killed at.
    """
    if not strace.is_available():
        return Crashes(unavailable=strace.MISSING)
    stage = _Stage(world, saver, limit, folder)
    try:
        return _inject_faults(stage, points)
    finally:
        stage.reset()


class _UnreadyError(Exception):
    """The saver was not called, for reasons of ours."""


def _inject_faults(stage: _Stage, points: int) -> Crashes:
    try:
        whole = stage.save(
            [strace.options(log, more=strace.FLUSHING, timed=True) for log in stage.logs]
        )
    except _UnreadyError as reason:
        return Crashes(unavailable=str(reason))
    stage.keep("new")
    if failed(whole):
        first = next(outcome for outcome in whole if outcome.status != "returned")
        return Crashes(
            unavailable=f"the undisturbed save {first.status} in a forked process: {first.detail}"
        )
    calls = [
        (rank, call)
        for rank, log in enumerate(stage.logs)
        for call in strace.read_calls(log, stage.output)
    ]
    if not calls:
        return Crashes(unavailable="strace saw no call that changes the output folder")
    trace = read_trace(stage.logs, stage.output)
    faults = [
        stage.kill(rank, call, number)
        for number, (rank, call) in enumerate(strace.spread(calls, points), start=1)
    ]
    faults += [
        stage.fail(rank, call, error, number)
        for rank in range(len(stage.logs))
        for error, count in FAILURES
        for number, call in enumerate(
            strace.spread([c for r, c in calls if r == rank and _can_fail(c, error)], count),
            start=1,
        )
    ]
    return Crashes(faults=tuple(item for item in faults if item is not None), trace=trace)


def _can_fail(call: Call, error: str) -> bool:
    """Whether a disk that is full, broken or without permission answers ``call`` with ``error``."""
    if error == "EIO":
        return call.name in strace.WRITING
    # Without permission a disk still takes bytes into files that are open.
    return call.creates and (error != "EACCES" or call.name not in strace.WRITING)


class _Stage:
    """The output folder, put back before each forked save."""

    def __init__(self, world: World, saver: str, limit: float, folder: Path) -> None:
        self.output = folder / "out"
        self.logs = [folder / f"strace-{rank}.log" for rank in range(world.key.size)]
        self._states, self._meetings = folder / STATES, folder / "meetings"
        self._world, self._saver, self._limit = world, saver, limit
        self._count = 0
        self._states.mkdir()
        self.keep("old")

    def reset(self) -> None:
        """Make the output folder what it was before the first forked save."""
        shutil.rmtree(self.output, ignore_errors=True)
        shutil.copytree(self._states / "old", self.output, symlinks=True)

    def keep(self, name: str) -> None:
        """Copy the output folder as it is now."""
        self.output.mkdir(exist_ok=True)
        shutil.copytree(self.output, self._states / name, symlinks=True)

    def save(
        self, strace: Sequence[list[str]] = (), grace: float = FAILURE_GRACE
    ) -> tuple[RankOutcome, ...]:
        """Save in forks into the output folder as it is, with a command for each rank, or none."""
        self._count += 1
        meeting = self._meetings / str(self._count)
        meeting.mkdir(parents=True)
        commands = strace or [[] for _ in self.logs]
        answers = self._world.save_in_fork(self._saver, commands, meeting, self._limit, grace)
        outcomes = []
        for rank, answer in enumerate(answers):
            if answer.status != "returned":
                raise HarnessFailedError(f"a forked save {answer.status}\n{answer.detail}")
            ended = ForkedResult(**json.loads(answer.detail))
            if ended.status == "unready":
                raise _UnreadyError(f"rank {rank} could not save_in_fork a save: {ended.detail}")
            outcomes.append(RankOutcome(rank, ended.status, ended.detail, answer.seconds))
        return tuple(outcomes)

    def kill(self, rank: int, call: Call, number: int) -> Fault | None:
        """Kill a save at ``call`` and save again; None when the call did not come this time.

        Every other kill takes all ranks with it, as the end of a machine or of a job does; the
        rest leave the other ranks to themselves.
        """
        strace = self._injecting(rank, call, "signal=KILL")
        grace, name = SURVIVAL if number % 2 else 0.0, f"killed-{number}"
        try:
            if not any(self._was_killed(rank, strace, grace) for _ in range(ATTEMPTS)):
                return None
            self.keep(name)
            again = self.save()
        except _UnreadyError:
            return None
        self.keep(f"{name}-again")
        return Fault("kill", rank, call.text, name, again)

    def _was_killed(self, rank: int, strace: list[list[str]], grace: float) -> bool:
        self.reset()
        return self.save(strace, grace)[rank].status == "died"

    def fail(self, rank: int, call: Call, error: str, number: int) -> Fault | None:
        """Make ``call`` fail once; None when the call did not come this time."""
        self.reset()
        try:
            ended = self.save(self._injecting(rank, call, f"error={error}"))
        except _UnreadyError:
            return None
        if not strace.was_injected(self.logs[rank], self.output):
            return None
        name = f"{error}-{rank}-{number}"
        self.keep(name)
        return Fault(error, rank, call.text, name, ended)

    def _injecting(self, rank: int, call: Call, effect: str) -> list[list[str]]:
        """A command for each rank: strace for ``rank`` alone."""
        commands: list[list[str]] = [[] for _ in self.logs]
        commands[rank] = strace.options(self.logs[rank], call, effect)
        return commands


def files_of(folder: Path, state: str) -> frozenset[str]:
    """Paths that the output folder had in a kept state; ``folder`` is the case's."""
    return frozenset(scan(folder / STATES / state))
