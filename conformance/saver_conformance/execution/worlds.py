"""The worlds of a run: started when a case needs one, proven once, ended when they are spoilt."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from saver_conformance.cases.case import Case, Mode, WorldKey
from saver_conformance.cases.strategies import make_case
from saver_conformance.errors import HarnessFailedError, UnknownSaverError
from saver_conformance.execution import preflight
from saver_conformance.execution.progress import Progress
from saver_conformance.execution.workload import Workload
from saver_conformance.observation.observation import RankOutcome
from saver_conformance.observation.process_diff import LIBRARIES, Change
from saver_conformance.processes import interrupts
from saver_conformance.processes.devices import count_accelerators
from saver_conformance.processes.forked_process import ForkServer
from saver_conformance.processes.operators import run_operators
from saver_conformance.processes.protocol import Answer
from saver_conformance.processes.reloader import Reloader
from saver_conformance.processes.world import World

MAX_RANKS = 16
"""Processes that are kept up; worlds that came first are stopped when there would be more."""
MORE_THREADS = 80
"""Threads that a rank that takes one more case has at most beside those of its first: torch keeps
those of the process groups of each device mesh, and they wake up a hundred times a second."""


class Worlds:
    """The worlds that are up, each with the saver imported."""

    def __init__(
        self,
        saver: str,
        workload: Workload,
        server: ForkServer,
        reloader: Reloader,
        scratch: Path,
        make_folder: Callable[[], Path],
        *,
        save_limit: float,
        progress: Progress,
    ) -> None:
        """Nothing is started yet.

        Args:
            saver: the saver's address.
            workload: what trains and reloads.
            server: what ranks are forked from.
            reloader: has to come up, too, before a world counts as proven.
            scratch: a folder for the ranks' files.
            make_folder: makes a new folder for a case.
            save_limit: seconds after which a save counts as hanging.
            progress: told what is waited for.
        """
        self.saver = saver
        self._workload = workload
        self._server = server
        self._reloader = reloader
        self._scratch = scratch
        self._make_folder = make_folder
        self._save_limit = save_limit
        self._progress = progress
        self._worlds: dict[WorldKey, World] = {}
        self._threads: dict[WorldKey, int] = {}
        self._proven: set[WorldKey] = set()
        self._used: set[WorldKey] = set()
        self._operators: set[bool] = set()

    @property
    def running(self) -> tuple[World, ...]:
        """The worlds that are up."""
        return tuple(self._worlds.values())

    def has(self, case: Case) -> bool:
        """Whether a world for ``case`` is up, and not worn out."""
        key = _key_of(case)
        world = self._worlds.get(key)
        return world is not None and world.threads <= self._threads.get(key, 0) + MORE_THREADS

    def of(self, case: Case) -> World:
        """The world for ``case``, which is up."""
        return self._worlds[_key_of(case)]

    def start(self, case: Case) -> None:
        """Start a world for ``case``, with the saver imported and the harness known to work.

        Raises:
            UnknownSaverError: there is no such saver.
            HarnessFailedError: the ranks do not start, or fail at a save that does nothing.
        """
        key = _key_of(case)
        self._end(key)
        while self._worlds and sum(k.size for k in self._worlds) + key.size > MAX_RANKS:
            self._end(next(iter(self._worlds)))
        self._build_operators(key)
        with interrupts.held():
            world = self._worlds[key] = World(
                key,
                prepare=self._workload.prepare,
                process_group=self._workload.process_group,
                scratch=self._scratch,
                server=self._server,
            )
        # First, so that a saver that cannot be imported is named at once.
        _expect_loaded(world.load(self.saver), self.saver)
        world.join()
        if key not in self._proven:
            self._prove(world, case)
            self._proven.add(key)
        self._threads.setdefault(key, world.threads)

    def load(self, saver: str) -> None:
        """Turn to another saver, on the worlds that are up and on those to come.

        Raises:
            UnknownSaverError: there is no such saver.
        """
        self.saver = saver
        for world in self._worlds.values():
            _expect_loaded(world.load(saver), saver)

    def is_used(self, case: Case) -> bool:
        """Whether the saver has raised on the ranks for ``case``."""
        return _key_of(case) in self._used

    def keep_if_usable(self, case: Case, outcomes: Sequence[RankOutcome]) -> None:
        """Keep ranks on which a save failed if they can take the next case; else end them."""
        if is_usable(self.of(case), outcomes):
            self._used.add(_key_of(case))
        else:
            self.discard(case)

    def discard(self, case: Case) -> None:
        """End the world for ``case``, if one is up."""
        self._end(_key_of(case))

    def stop(self) -> None:
        """End all worlds."""
        for key in tuple(self._worlds):
            self._end(key)

    def _end(self, key: WorldKey) -> None:
        self._used.discard(key)
        with interrupts.held():
            if key in self._worlds:
                self._worlds.pop(key).stop()

    def _build_operators(self, key: WorldKey) -> None:
        """Have what DeepSpeed would compile in the ranks compiled, once."""
        cpu = count_accelerators() < key.size
        if key.family == "torch" or cpu in self._operators or not self._workload.operators:
            return
        run_operators(self._workload.operators, self._progress.note, self._scratch, cpu=cpu)
        self._operators.add(cpu)

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


def is_usable(world: World, outcomes: Sequence[RankOutcome]) -> bool:
    """Whether ranks on which the saver raised can take the next case."""
    if any(outcome.status not in ("returned", "raised") for outcome in outcomes):
        return False
    if not world.meet():
        return False
    answers = world.compare()
    if any(answer.status != "returned" for answer in answers):
        return False
    return not is_spoilt(read_changes(answers)) and world.close()


def is_spoilt(changes: tuple[tuple[Change, ...], ...]) -> bool:
    """Whether the next case would train under what a save left."""
    return any(change.area in ("process", LIBRARIES) for rank in changes for change in rank)


def read_changes(answers: tuple[Answer, ...]) -> tuple[tuple[Change, ...], ...]:
    """For each rank what the save changed in its process.

    Raises:
        HarnessFailedError: a rank could not say it.
    """
    for rank, answer in enumerate(answers):
        if answer.status != "returned":
            raise HarnessFailedError(
                f"rank {rank} {answer.status} when asked what had changed\n{answer.detail}"
            )
    return tuple(tuple(Change(**plain) for plain in json.loads(a.detail)) for a in answers)


def _key_of(case: Case) -> WorldKey:
    return WorldKey.of_case(case)


def _expect_loaded(answers: tuple[Answer, ...], saver: str) -> None:
    for rank, answer in enumerate(answers):
        if answer.status == "unavailable":
            raise UnknownSaverError(answer.detail)
        if answer.status != "returned":
            raise UnknownSaverError(
                f"importing {saver} {answer.status} on rank {rank}\n{answer.detail}"
            )
