"""Checkpoints of a ``transformers.Trainer`` that are there whole or not at all.

The trainer writes into the folder ``checkpoint-N`` itself, and rotation goes by the beginning of
names and the age of folders. A job that is killed meanwhile leaves a folder that
``get_last_checkpoint`` takes for a checkpoint. Here each checkpoint is written out of sight,
flushed and renamed, and rotation removes nothing but checkpoints.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from canonical_saver.collectives import Ranks
from canonical_saver.errors import SaveError, WriteError
from canonical_saver.file_io import flush_path

STAGING = ".canonical-checkpoint"
"""Folder in the trainer's for what is not a checkpoint yet, and for what is none any more."""

_NAME = re.compile(r"checkpoint-([0-9]+)")
_STATE, _REPLACED = "trainer_state.json", "-replaced"
_METHOD, _PLACE = "_save_checkpoint", "_get_output_dir"
_log = logging.getLogger("canonical_saver")


def make_checkpoints_whole(trainer: Any, also: Callable[[Path], object] = lambda _: None) -> bool:
    """Have ``trainer`` save checkpoints that are there whole or not at all; call it on every rank.

    Args:
        trainer: the trainer, of any subclass, before it trains.
        also: called on every rank with the folder of each checkpoint before it gets its name, to
            put more into it.

    Returns:
        Whether that is so. A trainer that uploads its checkpoints reads them from where they are
        while training goes on: it is left as it is, with a warning. So is one of another kind.

    Examples:
        >>> make_checkpoints_whole(trainer)
        True
    """
    if not (hasattr(trainer, _METHOD) and hasattr(trainer, _PLACE)):
        _log.warning(
            "expected a transformers.Trainer, found %s: its checkpoints are left to it",
            type(trainer).__name__,
        )
        return False
    if trainer.args.push_to_hub:
        _log.warning(
            "push_to_hub uploads checkpoints from where the trainer writes them: they are left "
            "to the trainer, and a job that is killed may leave one that is cut off"
        )
        return False
    if not isinstance(vars(trainer).get(_METHOD), _WholeCheckpoints):
        save = getattr(trainer, _METHOD)
        setattr(trainer, _METHOD, _WholeCheckpoints(trainer, save, also))
    return True


@dataclass(frozen=True)
class _WholeCheckpoints:
    """Stands where the trainer's method that saves a checkpoint was.

    Attributes:
        trainer: the trainer.
        save: the trainer's own method.
        also: see ``make_checkpoints_whole``.
    """

    trainer: Any
    save: Callable[[Any, Any], object]
    also: Callable[[Path], object]

    def __call__(self, model: Any, trial: Any = None) -> None:
        """Save a checkpoint; collective."""
        trainer, ranks = self.trainer, Ranks.current()
        run = Path(trainer._get_output_dir(trial=trial))
        name = f"checkpoint-{trainer.state.global_step}"
        staged, final = run / STAGING / name, run / name
        ranks.step("prepare a checkpoint", lambda: self._clear(run, final))
        try:
            with _writing_to(trainer, run / STAGING):
                self.save(model, trial)
        except BaseException:  # a full disk needs the space
            shutil.rmtree(run / STAGING, ignore_errors=True)
            raise
        ranks.step("finish a checkpoint", lambda: self._finish(staged, final))
        failed = self._add_to(staged)
        # Where ranks share no file system, each machine has a part of the checkpoint.
        for mine in (trainer.args.should_save, trainer.args.local_process_index == 0):
            ranks.step(
                "publish a checkpoint",
                lambda mine=mine: _publish(staged, final) if mine else None,  # type: ignore[misc]
            )
        if failed is not None:
            raise failed
        ranks.step("remove old checkpoints", lambda: self._rotate(run))

    def _add_to(self, staged: Path) -> SaveError | None:
        """Put more into a checkpoint; an error, which all ranks have, costs nobody the checkpoint.

        Returns:
            The error.
        """
        try:
            self.also(staged)
        except SaveError as error:
            return error
        return None

    def _clear(self, run: Path, final: Path) -> None:
        """Remove what a save that was cut off has left, and look whether the name is free."""
        if os.path.lexists(final) and (final.is_symlink() or not final.is_dir()):
            raise WriteError(
                f"expected a place for a checkpoint, found something else, please move it: {final}"
            )
        if self.trainer.args.local_process_index == 0:
            for path in (run / STAGING).glob(f"*{_REPLACED}"):  # cut off while it was replaced
                place = run / path.name.removesuffix(_REPLACED)
                if not os.path.lexists(place):
                    path.rename(place)
            shutil.rmtree(run / STAGING, ignore_errors=True)

    def _finish(self, staged: Path, final: Path) -> None:
        """Name the best checkpoint by the path that it will have."""
        trainer = self.trainer
        state, run = trainer.state, final.parent
        if state.best_global_step:
            best = run / f"checkpoint-{state.best_global_step}"
            if best == final or best.is_dir():
                state.best_model_checkpoint = str(best)
        if trainer.args.should_save:
            state.save_to_json(str(staged / _STATE))

    def _rotate(self, run: Path) -> None:
        """Remove the oldest checkpoints beyond the limit, never the best one or the newest."""
        trainer = self.trainer
        limit, state = trainer.args.save_total_limit, trainer.state
        if trainer.args.should_save and limit and limit > 0:
            best = Path(state.best_model_checkpoint or "").name
            for step in surplus(_steps(run), limit, state.global_step, _step(best)):
                _remove(run / f"checkpoint-{step}", run / STAGING)
        if trainer.args.local_process_index == 0:
            shutil.rmtree(run / STAGING, ignore_errors=True)


def surplus(there: list[int], limit: int, newest: int, best: int | None) -> list[int]:
    """The steps of the checkpoints to remove, the oldest first.

    A checkpoint of a later step is of another training, and none of ours to count or to remove.

    Args:
        there: steps of the checkpoints that are there.
        limit: how many may stay, if the best and the newest are among them.
        newest: the step of the newest one of this training.
        best: the step of the best one; None when there is none.

    Examples:
        >>> surplus([1, 2, 3, 4, 900], limit=2, newest=4, best=2)
        [1, 3]
    """
    own = sorted(step for step in there if step <= newest)
    kept = {newest, best} & set(own)
    count = len(own) - max(limit, len(kept))
    return [step for step in own if step not in kept][: max(0, count)]


@contextmanager
def _writing_to(trainer: Any, folder: Path) -> Iterator[None]:
    """Let the trainer save into ``folder`` for a while."""
    own = vars(trainer).get(_PLACE)
    setattr(trainer, _PLACE, lambda trial=None: str(folder))
    try:
        yield
    finally:
        delattr(trainer, _PLACE) if own is None else setattr(trainer, _PLACE, own)


def _publish(staged: Path, final: Path) -> None:
    """Give a checkpoint its name, once all of it is on disk."""
    if not staged.is_dir():  # another machine with the same file system has done it
        return
    for folder, _, files in os.walk(staged, topdown=False):
        for name in files:
            flush_path(Path(folder, name))
        flush_path(Path(folder))
    replaced = staged.with_name(f"{final.name}{_REPLACED}")
    if final.is_dir():  # of a training that went on from an earlier checkpoint
        final.rename(replaced)
    try:
        staged.rename(final)
    except OSError as error:
        if replaced.is_dir() and not final.exists():
            replaced.rename(final)
        if not isinstance(error, FileNotFoundError):  # or another machine was faster
            raise
    flush_path(final.parent)


def _remove(checkpoint: Path, staging: Path) -> None:
    """Remove a checkpoint so that it is gone at once, not file by file."""
    staging.mkdir(exist_ok=True)
    gone = staging / f"{checkpoint.name}-removed"
    checkpoint.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def _steps(run: Path) -> list[int]:
    return [
        step
        for path in run.iterdir()
        if (step := _step(path.name)) is not None and path.is_dir() and not path.is_symlink()
    ]


def _step(name: str) -> int | None:
    """The step of a checkpoint's folder; None for any other name."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None
