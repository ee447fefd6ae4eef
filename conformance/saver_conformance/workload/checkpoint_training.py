"""A training that saves checkpoints, seen step by step.

An evaluation after each step makes an old checkpoint the best one, so that keeping the newest ones
alone would lose it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from saver_conformance.cases.case import Case
from saver_conformance.errors import Unavailable
from saver_conformance.folder.safetensors import write
from saver_conformance.observation.observation import Tensor
from saver_conformance.workload import models, oracle, process_state, require, training
from saver_conformance.workload.config import make_config
from saver_conformance.workload.prepare import expect
from saver_conformance.workload.running_engine import uncompiled

SCORES = (0.1, 0.9, 0.5, 0.4, 0.3)
"""What the evaluation says after each step; one training has as many steps, each with a save."""
LIMIT = 3
"""Checkpoints that the trainer is told to keep: there are more, and the oldest is not the best."""

Prepare = Callable[[Any, Any, Any], object]


@dataclass(frozen=True, slots=True)
class Plan:
    """One training of a case; paths are absolute.

    Attributes:
        run: the trainer's folder.
        end: file for the weights after the last step.
        marks: a folder in which a folder is made after each step, once its save is over.
        saves: whether checkpoints are saved.
        resume: the checkpoint that training is resumed from; empty for a new training.
        steps: a folder for the weights after each step; empty for none.
        moments: a folder for copies of ``run`` after each step; empty for none.
    """

    run: str
    end: str
    marks: str
    saves: bool
    resume: str = ""
    steps: str = ""
    moments: str = ""


def train(case: Case, folder: Path, plan: Plan, prepare: Prepare | None) -> None:
    """Train as ``plan`` says; collective over the ranks.

    Args:
        case: what to train; its base model is there already.
        folder: the case's scratch folder.
        plan: how.
        prepare: gives the saver its part in checkpoints before training; None where the trainer's
            own are wanted.

    Raises:
        Unavailable: the case's trainer is none whose checkpoints are looked at.
    """
    require(case)
    if case.trainer != "transformers":
        raise Unavailable(f"checkpoints are tried with transformers.Trainer, not {case.trainer}")
    process_state.start_process()
    process_state.forget_garbage()
    environment = dict(os.environ)
    made: list[Any] = []
    try:
        _train(case, folder, plan, prepare, made)
    finally:
        process_state.give_back(environment, case, *made)


def last_steps(folders: Mapping[str, str]) -> dict[str, str | None]:
    """The name of the checkpoint that ``get_last_checkpoint`` finds in each folder."""
    found = {name: get_last_checkpoint(path) for name, path in folders.items()}
    return {name: path and Path(path).name for name, path in found.items()}


def _train(case: Case, folder: Path, plan: Plan, prepare: Prepare | None, made: list[Any]) -> None:
    process_state.seed_all(case.seed)
    base = models.base_folder(case, folder)
    processing = models.make_processing(case)
    model = training.adapt(models.load_base(case, base, spread=True), case)
    scores = _Scores()
    trainer = training.make_trainer(
        case,
        model,
        processing,
        Path(plan.run),
        more_arguments=_arguments(plan),
        parts={
            "eval_dataset": training.RandomRows(case, case.seed + 2, length=4),
            "compute_metrics": scores,
        },
    )
    made.append(trainer)
    scores.trainer = trainer
    names = oracle.read_names(trainer.model, case.family)
    if prepare is not None:
        number = int(os.environ.get("LOCAL_RANK", "0"))
        cfg = make_config(case, base, Path(plan.run), local_rank=number)
        prepare(cfg, trainer, model)
    # Last, so that what the saver's own callbacks do is over.
    trainer.add_callback(_Watch(case, base, trainer, names, plan))
    trainer.train(resume_from_checkpoint=plan.resume or None)
    if not training.is_trained_by_its_engine(case, trainer):
        raise RuntimeError(f"{case.mode} was trained by another engine")


def _arguments(plan: Plan) -> dict[str, Any]:
    evaluated = {"max_steps": len(SCORES), "eval_strategy": "steps", "eval_steps": 1}
    if not plan.saves:
        return evaluated
    return evaluated | {
        "save_strategy": "steps",
        "save_steps": 1,
        "save_total_limit": LIMIT,
        "load_best_model_at_end": True,
        "metric_for_best_model": "score",
        "greater_is_better": True,
    }


class _Scores:
    """The metric of the evaluation: a score for each step, whatever was predicted."""

    trainer: Any = None

    def __call__(self, prediction: object) -> dict[str, float]:
        return {"score": SCORES[self.trainer.state.global_step - 1]}


class _Watch(TrainerCallback):  # type: ignore[misc]
    """Keeps weights and checkpoints as they are after each step."""

    def __init__(
        self, case: Case, base: Path, trainer: Any, names: oracle.Names, plan: Plan
    ) -> None:
        self._case, self._base, self._trainer = case, base, trainer
        self._names, self._plan = names, plan
        self._begun = False

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._begun:  # what the step before saved is saved
            self._look(state.global_step)
        self._begun = True

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        is_last = state.global_step == len(SCORES)
        if not (self._plan.steps or is_last):
            return
        tensors = self._weights()
        if process_state.rank() == 0:
            if self._plan.steps:
                write(Path(self._plan.steps, f"{state.global_step}.safetensors"), tensors)
            if is_last:
                write(Path(self._plan.end), tensors)

    def _weights(self) -> Mapping[str, Tensor]:
        """What belongs in a save now, under the names that belong on disk."""
        root, names = uncompiled(self._trainer.model_wrapped), self._names
        wanted = names.trainable if self._case.adapter else names.of_whole_model
        seen = oracle.snapshot(self._case.mode.engine, root, names, wanted)
        return expect(self._case, self._base, self._trainer.model, names, seen, {}).tensors

    def _look(self, step: int) -> None:
        process_state.barrier()  # another rank may still be saving
        if process_state.rank() == 0:
            Path(self._plan.marks, str(step)).mkdir()
            if self._plan.moments:
                kept = Path(self._plan.moments, str(step))
                shutil.copytree(self._plan.run, kept, symlinks=True)
        process_state.barrier()
