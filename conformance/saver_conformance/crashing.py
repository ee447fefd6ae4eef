"""Kills saves and makes their system calls fail, and keeps what is then in the folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from saver_conformance import tracing
from saver_conformance.disk.directory import scan
from saver_conformance.harness import HarnessFailedError
from saver_conformance.observation import Crashes, Disturbance
from saver_conformance.rehearsal import Rehearsed
from saver_conformance.tracing import Call
from saver_conformance.world import World

CRASH_POINTS = 20
"""Points of a save at which it is killed."""
FAILURES = (("ENOSPC", 4), ("EACCES", 2))
"""Errors of system calls, with the number of points at which each is made to happen."""

STATES = "states"
"""Folder, in the case's, that keeps the output folder as each disturbed save left it."""


def disturb(world: World, saver: str, limit: float, folder: Path) -> Crashes:
    """Rehearse the save of the prepared case: whole, killed at many points, with failing calls.

    The output folder is afterwards what it was.

    Args:
        world: one rank, ready for the saver.
        saver: the saver's address.
        limit: seconds after which a save counts as hanging.
        folder: the case's scratch folder.
    """
    if not tracing.is_available():
        return Crashes(unavailable=tracing.MISSING)
    stage = _Stage(world, saver, limit, folder)
    try:
        return _disturb(stage)
    finally:
        stage.reset()


def _disturb(stage: _Stage) -> Crashes:
    whole = stage.save(None, "")
    stage.keep("new")
    if whole.status != "returned":
        return Crashes(
            unavailable=f"the undisturbed save {whole.status} in a forked process: {whole.detail}"
        )
    calls = tracing.read_calls(stage.log, stage.output)
    if not calls:
        return Crashes(unavailable="strace saw no call that changes the output folder")
    disturbances = [
        stage.kill(call, number)
        for number, call in enumerate(tracing.spread(calls, CRASH_POINTS), start=1)
    ]
    creating = [call for call in calls if call.creates]
    for error, count in FAILURES:
        # A disk without permission still takes bytes into files that are open.
        fitting = [c for c in creating if error != "EACCES" or c.name not in tracing.WRITING]
        disturbances += [
            stage.fail(call, error, number)
            for number, call in enumerate(tracing.spread(fitting, count), start=1)
        ]
    return Crashes(disturbances=tuple(item for item in disturbances if item is not None))


class _Stage:
    """The output folder, put back before each rehearsal."""

    def __init__(self, world: World, saver: str, limit: float, folder: Path) -> None:
        self.output, self.log = folder / "out", folder / "strace.log"
        self._states = folder / STATES
        self._said = folder / "rehearsal.txt"
        self._world, self._saver, self._limit = world, saver, limit
        self._states.mkdir()
        self.keep("old")

    def reset(self) -> None:
        """Make the output folder what it was before the first rehearsal."""
        shutil.rmtree(self.output, ignore_errors=True)
        shutil.copytree(self._states / "old", self.output, symlinks=True)

    def keep(self, name: str) -> None:
        """Copy the output folder as it is now."""
        self.output.mkdir(exist_ok=True)
        shutil.copytree(self.output, self._states / name, symlinks=True)

    def save(self, call: Call | None, effect: str, *, traced: bool = True) -> Rehearsed:
        """Rehearse a save on the output folder as it is."""
        command = tracing.options(self.log, call, effect) if traced else []
        answer = self._world.rehearse(self._saver, command, self._said, self._limit)
        if answer.status != "returned":
            raise HarnessFailedError(f"a rehearsal {answer.status}\n{answer.detail}")
        return Rehearsed(**json.loads(answer.detail))

    def kill(self, call: Call, number: int) -> Disturbance | None:
        """Kill a save at ``call`` and save again; None when the call did not come this time."""
        self.reset()
        if self.save(call, "signal=KILL").status != "died":
            return None
        name = f"killed-{number}"
        self.keep(name)
        again = self.save(None, "", traced=False)
        self.keep(f"{name}-again")
        return Disturbance("kill", call.text, name, again.status, again.detail)

    def fail(self, call: Call, error: str, number: int) -> Disturbance | None:
        """Make ``call`` fail once; None when the call did not come this time."""
        self.reset()
        ended = self.save(call, f"error={error}")
        if "(INJECTED)" not in self.log.read_text(errors="replace"):
            return None
        name = f"{error}-{number}"
        self.keep(name)
        return Disturbance(error, call.text, name, ended.status, ended.detail)


def files_of(folder: Path, state: str) -> frozenset[str]:
    """Paths that the output folder had in a kept state; ``folder`` is the case's."""
    return frozenset(scan(folder / STATES / state))
