"""Has a case trained with checkpoints: to its end, resumed, and killed in the middle of a save."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saver_conformance.cases.case import Case
from saver_conformance.claims.checkpoint_claim import CheckpointClaim
from saver_conformance.errors import HarnessFailedError
from saver_conformance.folder.checkpoint import (
    checkpoints_in,
    fault_of_model,
    has_readable_weights,
    step_of,
)
from saver_conformance.folder.safetensors import read_header, read_tensor
from saver_conformance.observation.checkpoints import Checkpoints, Cut, Moment
from saver_conformance.observation.observation import Tensor
from saver_conformance.observation.tensor_diff import compare
from saver_conformance.processes import strace
from saver_conformance.processes.protocol import Answer
from saver_conformance.processes.strace import Call
from saver_conformance.processes.world import World

WORKLOAD = "saver_conformance.workload.checkpoint_training"
"""The module that trains."""
STEPS, BEST, LIMIT = 5, 2, 3
"""Steps of its trainings, the step of the best evaluation, and checkpoints that are to be kept."""
RESUMED = 3
"""The step whose checkpoint an uninterrupted training is resumed from."""
CUT = 4
"""The step whose checkpoint's save is cut off: there is an older one that is not the best."""
CUTS = 4
"""Points at which it is cut off at most."""
ATTEMPTS = 2
"""How often a kill is tried: now and then a thread makes its calls in another order."""
SECONDS = 60.0
"""After which a training in a fork counts as hanging."""

FOREIGN: Mapping[str, bytes] = {
    "checkpoint-extra/notes.txt": b"the user's own",
    "checkpoint-1-mine/model.safetensors": b"a copy that the user keeps",
    "checkpoints.txt": b"1: good",
}
"""Files of others in the trainer's folder, whose names begin like those of checkpoints."""
LONG_AGO = 1_000_000_000
"""Time of the last change of their folders: whoever goes by age takes them for the oldest."""


def run_checkpoints(
    world: World, claim: CheckpointClaim | None, case: Case, folder: Path, points: int = CUTS
) -> Checkpoints:
    """Train ``case`` with checkpoints; the world holds no case afterwards.

    Args:
        world: ranks whose case is saved and looked at.
        claim: the saver's part in checkpoints; None when it claims none.
        case: the case.
        folder: its scratch folder.
        points: at how many points of its save a checkpoint is cut off, if the case has one process.

    Raises:
        HarnessFailedError: the case cannot be trained without checkpoints.
    """
    if claim is None:
        return Checkpoints(unavailable="the saver claims no part in checkpoints")
    return _Runs(world, claim, case, folder / "checkpoints", min(points, CUTS)).look()


@dataclass(frozen=True, slots=True)
class _Runs:
    """The trainings of one case.

    Attributes:
        world: the ranks.
        claim: the saver's part.
        case: what is trained.
        folder: where all of this lies.
        points: at how many points a save is cut off.
    """

    world: World
    claim: CheckpointClaim
    case: Case
    folder: Path
    points: int

    @property
    def run(self) -> Path:
        """The trainer's folder, the same for all trainings: checkpoints have its path in them."""
        return self.folder / "run"

    def look(self) -> Checkpoints:
        for name in ("ends", "steps", "moments", "meetings"):
            (self.folder / name).mkdir(parents=True)
        self._clear()
        plain = self.world.train(self._training("plain", saves=False))
        if all(answer.status == "unavailable" for answer in plain):
            return Checkpoints(unavailable=plain[0].detail)
        if error := _error_of(plain):
            raise HarnessFailedError(f"{self.case.to_json()} could not be trained:\n{error}")
        self._clear()
        steps, moments_of = (str(self.folder / name) for name in ("steps", "moments"))
        whole = self._training("whole", steps=steps, moments=moments_of)
        if error := _error_of(self.world.train(whole)):
            return Checkpoints(error=error, limit=LIMIT)
        self.run.rename(self.folder / "moments" / str(STEPS))
        model = self.folder / "moments/1/checkpoint-1" / self.claim.model
        if model.is_dir() and any(model.iterdir()) and not has_readable_weights(model):
            return Checkpoints(unavailable="the checkpoints have no weights in safetensors")
        moments = tuple(self._moments())
        resume_fault = ""
        if self.claim.resumes:
            self._clear(self.folder / "moments" / str(RESUMED))
            resume_fault = self._resume("resumed", RESUMED)
            if not resume_fault:
                moments += (self._moment(self.run, "at the end of a resumed training", STEPS),)
        cuts, no_cuts = self._cut(with_resume=self.claim.resumes and not resume_fault)
        return Checkpoints(
            limit=LIMIT,
            moments=moments,
            cuts=cuts,
            no_cuts=no_cuts,
            resumes=self.claim.resumes,
            resume_fault=resume_fault,
        )

    def _training(self, name: str, *, saves: bool = True, **more: str) -> dict[str, Any]:
        """The request for one training; ``name`` names the file of its last weights."""
        marks = self.folder / "marks"
        shutil.rmtree(marks, ignore_errors=True)
        marks.mkdir()
        plan = {"run": str(self.run), "end": str(self._end(name)), "marks": str(marks)}
        return {
            "module": WORKLOAD,
            "case": self.case.to_json(),
            "folder": str(self.folder.parent),
            "plan": {**plan, "saves": saves, **more},
            "saver": self.claim.prepare if saves else "",
        }

    def _end(self, name: str) -> Path:
        return self.folder / "ends" / f"{name}.safetensors"

    def _clear(self, content: Path | None = None) -> None:
        """Make the trainer's folder a copy of ``content``; None: files of others alone."""
        shutil.rmtree(self.run, ignore_errors=True)
        if content is not None:
            shutil.copytree(content, self.run, symlinks=True)
            return
        self.run.mkdir()
        for name, text in FOREIGN.items():
            path = self.run / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(text)
            if path.parent != self.run:
                os.utime(path.parent, (LONG_AGO, LONG_AGO))

    def _moments(self) -> Iterator[Moment]:
        for step in range(1, STEPS + 1):
            name = "at the end" if step == STEPS else f"after step {step}"
            yield self._moment(self.folder / "moments" / str(step), name, step)

    def _moment(self, run: Path, name: str, step: int) -> Moment:
        faults = {}
        for number, path in checkpoints_in(run).items():
            weights = self.folder / "steps" / f"{number}.safetensors"
            right = _read(weights) if weights.exists() else {}
            faults[number] = fault_of_model(path / self.claim.model, right)
        foreign = tuple(name for name, text in FOREIGN.items() if not _holds(run / name, text))
        return Moment(name, step, min(step, BEST), faults, foreign)

    def _resume(self, name: str, step: int) -> str:
        """Train on from a checkpoint in the trainer's folder; what is other than uninterrupted."""
        source = self.run / f"checkpoint-{step}"
        if not source.is_dir():
            return f"{source.name} is not there"
        if error := _error_of(self.world.train(self._training(name, resume=str(source)))):
            return f"resuming from {source.name} failed: {error}"
        right, found = _read(self._end("plain")), _read(self._end(name))
        for key, tensor in right.items():
            if difference := compare(key, tensor, found.get(key)):
                told = f"expected {difference.expected}, found {difference.found}"
                return f"resumed from {source.name}, training ends with another {key}: {told}"
        return ""

    def _cut(self, *, with_resume: bool) -> tuple[tuple[Cut, ...], str]:
        if self.world.key.size > 1:
            return (), "a training of several ranks is not killed"
        if not strace.is_available():
            return (), strace.MISSING
        if not self.points:
            return (), "no save was to be cut off"
        log = self.folder / "strace.log"
        self._clear()
        ended = self._in_fork("traced", strace.options(log))
        if ended != "returned":
            return (), f"a traced training {ended} in a forked process"
        calls = list(_calls_between(strace.read_calls(log, self.folder), CUT - 1, CUT))
        killed = {}
        for number, call in enumerate(strace.spread(calls, self.points)):
            if self._kill(f"killed-{number}", call, log):
                killed[f"killed-{number}"] = call
        if not killed:
            return (), "no chosen call occurred again, so no save could be cut off"
        folders = {name: str(self.folder / name) for name in killed}
        answer = self.world.find_last(WORKLOAD, folders)
        if answer.status != "returned":
            raise HarnessFailedError(f"no checkpoint could be looked for:\n{answer.detail}")
        last = json.loads(answer.detail)
        return tuple(
            self._look_at(name, call, last[name], with_resume) for name, call in killed.items()
        ), ""

    def _in_fork(self, name: str, command: list[str]) -> str:
        """How a training in a fork ended."""
        meeting = self.folder / "meetings" / name
        shutil.rmtree(meeting, ignore_errors=True)
        meeting.mkdir()
        answer = self.world.train_in_fork(self._training(name), command, meeting, SECONDS)
        if answer.status != "returned":
            raise HarnessFailedError(f"a forked training {answer.status}\n{answer.detail}")
        status: str = json.loads(answer.detail)["status"]
        return status

    def _kill(self, name: str, call: Call, log: Path) -> bool:
        """Whether a training was killed at ``call``; what it left is kept under ``name``."""
        for _ in range(ATTEMPTS):
            self._clear()
            ended = self._in_fork(name, strace.options(log, call, "signal=KILL"))
            marks = {path.name for path in (self.folder / "marks").iterdir()}
            if ended == "died" and str(CUT - 1) in marks and str(CUT) not in marks:
                self.run.rename(self.folder / name)
                return True
        return False

    def _look_at(self, name: str, call: Call, last: str | None, with_resume: bool) -> Cut:
        step = step_of(last) if last else None
        moment = self._moment(self.folder / name, f"killed at {call.text}", CUT - 1)
        fault = ""
        if with_resume and step is not None and not moment.fault_of(step):
            self._clear(self.folder / name)
            fault = self._resume(name, step)
        return Cut(moment, call.text, step, fault)


def _calls_between(calls: list[Call], begin: int, end: int) -> Iterator[Call]:
    """The calls that change the trainer's folder between two marks."""
    inside = False
    for call in calls:
        if f'"marks/{begin}"' in call.text:
            inside = True
        elif f'"marks/{end}"' in call.text:
            return
        elif inside and ('"run/' in call.text or "<run/" in call.text):
            yield call


def _error_of(answers: tuple[Answer, ...]) -> str:
    """How the first rank failed that did; empty when all returned."""
    for rank, answer in enumerate(answers):
        if answer.status != "returned":
            lines = answer.detail.strip().splitlines()
            # Of a traceback the exception, which is what a user sees last.
            told = lines[-1] if answer.status == "raised" and lines else answer.detail
            return f"rank {rank} {answer.status}: {told}"
    return ""


def _read(path: Path) -> dict[str, Tensor]:
    header = read_header(path)
    return {name: read_tensor(path, header, name) for name in header.tensors}


def _holds(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content
