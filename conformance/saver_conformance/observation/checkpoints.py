"""What a training left of its checkpoints: as it went on, when it was cut off, and resumed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Moment:
    """The checkpoints at one moment of a training.

    Attributes:
        name: which moment, in words.
        step: the step of the newest checkpoint whose save has returned.
        best: the step of the best evaluation so far.
        checkpoints: for each checkpoint that is there, by its step, what is wrong with its model;
            empty when its model is whole and has the weights of that step.
        foreign: files of others that are missing or have other bytes.
    """

    name: str
    step: int
    best: int
    checkpoints: Mapping[int, str]
    foreign: tuple[str, ...] = ()

    def fault_of(self, step: int) -> str:
        """What is wrong with the checkpoint of ``step``; empty when it is there and whole."""
        return self.checkpoints.get(step, "no such checkpoint")


@dataclass(frozen=True, slots=True)
class Cut:
    """A training that was killed in the middle of a checkpoint's save.

    Attributes:
        moment: what was left; ``step`` and ``best`` are those before the save that was cut off.
        call: the system call at which it was killed.
        last: the step of the checkpoint that ``get_last_checkpoint`` finds; None when it finds
            none.
        resume_fault: what came of resuming from it other than from a checkpoint that was not cut
            off; empty when nothing did, or when it was not tried.
    """

    moment: Moment
    call: str
    last: int | None
    resume_fault: str = ""


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """What came of a training that saves checkpoints.

    Attributes:
        unavailable: why it was not tried; empty otherwise.
        error: how the training failed that does not fail without checkpoints; empty otherwise.
        limit: checkpoints that the trainer was told to keep, ``save_total_limit``.
        moments: after each checkpoint's save, in order, and at the end.
        cuts: trainings that were killed.
        no_cuts: why there are none.
        resumes: whether the saver claims that a resumed training goes on bit for bit.
        resume_fault: what came of resuming other than of the uninterrupted training; empty when
            nothing did, or when it was not tried.
    """

    unavailable: str = ""
    error: str = ""
    limit: int = 0
    moments: tuple[Moment, ...] = ()
    cuts: tuple[Cut, ...] = ()
    no_cuts: str = ""
    resumes: bool = False
    resume_fault: str = ""
