"""Injects a fault into one call of a save after the other and judges what each leaves behind."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist
from tests.helpers.engines import wrap
from tests.reference.crash.reading import Reader, snapshot
from tests.reference.crash.scenarios import Scenario
from tests.reference.crash.syscalls import Call, Ended, Fault, Watch, run

from canonical_saver import recover
from canonical_saver.publishing.staging import RECORD, STAGING

GRACE = 2.0
"""Seconds that a rank may end after the process group's timeout: a busy machine is slow."""


@dataclass
class Tally:
    """What came of the faults of one scenario.

    Attributes:
        name: of the scenario and the number of ranks.
        calls: file-system calls of an undisturbed save in the folder, by rank.
        changing: how many of them change something.
        points: faults made.
        found: how often the folder was found whole with the old or the new model, or refused.
        violations: what must not be.
        slowest: seconds in which the last survivor ended.
    """

    name: str
    calls: list[int] = field(default_factory=list)
    changing: int = 0
    points: int = 0
    found: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    slowest: float = 0.0

    def __str__(self) -> str:
        found = ", ".join(f"{count} {what}" for what, count in sorted(self.found.items()))
        return (
            f"{self.name}: {self.points} points of {self.calls} calls, {self.changing} changing; "
            f"left: {found}; slowest survivor {self.slowest:.1f} s; "
            f"{len(self.violations)} violations"
        )


class Stage:
    """A scenario on disk, put back before each fault.

    Args:
        scenario: what is saved over what.
        ranks: how many processes save together, sharded by FSDP2 if more than one.
        room: an empty folder.
        reader: loads what is found.
        timeout: seconds, of the process group.
    """

    def __init__(
        self, scenario: Scenario, ranks: int, room: Path, reader: Reader, timeout: float = 10.0
    ) -> None:
        self.scenario, self.ranks, self.timeout = scenario, ranks, timeout
        self._reader = reader
        self.folder, self.copy = room / "model", room / "copy"
        self._old, self._room = room / "old", room
        scenario.prepare(self._old)
        self.before, self.loaded_before = snapshot(self._old), reader.load(self._old)
        self._model = scenario.new.make()
        self.reset()
        self.save_again()
        self.after, self.loaded_after = snapshot(self.folder), reader.load(self.folder)
        self.tally = Tally(f"{scenario.name}, {ranks} ranks")
        self.calls = [ended.calls for ended in self.attempt(None)]
        self.tally.calls = [len(calls) for calls in self.calls]
        self.tally.changing = sum(call.changes for calls in self.calls for call in calls)
        if snapshot(self.folder) != self.after:
            raise AssertionError("an undisturbed save differs from rank count to rank count")

    def reset(self) -> None:
        """Put the folder back as it was before the save."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self._old, self.folder)

    def save_again(self) -> None:
        """Save the new model here and undisturbed."""
        self.scenario.saver(self._model, self.folder, **self.scenario.new.options)

    def attempt(self, fault: Fault | None) -> list[Ended]:
        """Put the folder back and save in as many processes as there are ranks."""
        self.reset()
        (self._room / "store").unlink(missing_ok=True)
        bodies = [self._body(rank) for rank in range(self.ranks)]
        ended = run(bodies, self.folder, self._room, fault, limit=30 + 4 * self.timeout)
        if fault is None and any(one.status != "returned" for one in ended):
            raise AssertionError(f"an undisturbed save failed: {ended}")
        return ended

    def _body(self, rank: int) -> Callable[[Watch], Any]:
        def body(watch: Watch) -> None:
            model = self._model
            if self.ranks > 1:
                join(rank, self.ranks, self._room / "store", self.timeout)
                model = wrap("fsdp2", model)
            watch()
            self.scenario.saver(model, self.folder, **self.scenario.new.options)

        return body

    def points(self) -> Iterator[tuple[int, int, Call]]:
        """Every call of every rank."""
        for rank, calls in enumerate(self.calls):
            for number, call in enumerate(calls):
                yield rank, number, call

    def kill(self, rank: int, number: int, call: Call, effect: str = "KILL") -> None:
        """Kill one rank at one call, and see what is left, for a reader and for a saver.

        Args:
            rank: which is killed.
            number: of the call that is its last.
            call: the same.
            effect: ``STOP`` to have it hang instead, and be killed when the others have ended.
        """
        ended = self.attempt(Fault(rank, number, effect))
        tally, where = self.tally, f"{effect} at call {number} of rank {rank}: {call}"
        tally.points += 1
        for other, one in enumerate(ended):
            victim = "killed" if effect == "KILL" else "stopped"
            expected = victim if other == rank else "refused"
            if one.status != expected:
                self._accuse(where, f"rank {other} {one.status}, {expected} was due: {one.detail}")
            elif other != rank:
                tally.slowest = max(tally.slowest, one.seconds)
                if one.seconds > self.timeout + GRACE:
                    self._accuse(where, f"rank {other} ended after {one.seconds:.0f} s")
        self._judge_folder(where)
        shutil.rmtree(self.copy, ignore_errors=True)
        shutil.copytree(self.folder, self.copy, symlinks=True)
        recover(self.copy)
        if snapshot(self.copy) not in (self.before, self.after):
            self._accuse(where, "recover yields neither the old nor the new folder")
        self.save_again()
        if snapshot(self.folder) != self.after:
            self._accuse(where, "the next save does not yield the new folder")

    def fail(self, rank: int, number: int, call: Call, error: str) -> None:
        """Make one call fail once, and see that it is told on every rank and nothing is lost."""
        ended = self.attempt(Fault(rank, number, error))
        tally, where = self.tally, f"{error} at call {number} of rank {rank}: {call}"
        tally.points += 1
        told = {(one.status, one.detail if one.status != "returned" else "") for one in ended}
        found = snapshot(self.folder)
        if {status for status, _ in told} == {"returned"}:
            if found != self.after:
                self._accuse(where, "the save returned, and the folder is not the new one")
            tally.found["new, the error did not matter"] += 1
            return
        if len(told) != 1 or next(iter(told))[0] != "refused":
            self._accuse(where, f"the ranks do not end with one error of the saver: {told}")
        if found == self.before:
            tally.found["old, nothing staged"] += 1
            return
        text = next(iter(told))[1]
        if "canonical-saver recover" not in text:
            self._accuse(where, f"the folder has changed, and the error does not say so: {text}")
        self._judge_folder(where)
        recover(self.folder)
        if snapshot(self.folder) != self.after:
            self._accuse(where, "recover does not yield the new folder")

    def _judge_folder(self, where: str) -> None:
        loaded = self._reader.load(self.folder)
        known = {"old": self.loaded_before, "new": self.loaded_after}
        which = next((name for name, value in known.items() if value == loaded), "mixture")
        if not loaded.keys() & {"model", "adapter"}:
            # The second adapter lies in a folder of its own, and is a model of its own.
            second = loaded.get("second adapter")
            if second in (None, *(value.get("second adapter") for value in known.values())):
                which = "refused"
        if which == "mixture":
            self._accuse(where, f"a mixture loads: {sorted(loaded)}")
        committed = (self.folder / STAGING / RECORD).exists()
        self.tally.found[f"{which}{', committed' if committed else ''}"] += 1

    def _accuse(self, where: str, what: str) -> None:
        self.tally.violations.append(f"{self.tally.name}: {where}: {what}")


def join(rank: int, world_size: int, store: Path, timeout: float) -> None:
    """Meet the other ranks of a forked world."""
    dist.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=timeout),
    )
