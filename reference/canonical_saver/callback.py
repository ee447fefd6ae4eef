"""A callback for ``transformers.Trainer`` that saves the canonical way."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from transformers import TrainerCallback

from canonical_saver.checkpoints import make_checkpoints_whole
from canonical_saver.errors import RequestError
from canonical_saver.from_trainer import lookup
from canonical_saver.options import parse_options
from canonical_saver.request import CFG_KEYS, Digest, Format, Verify
from canonical_saver.save import Report, save_trained_model

PLACE = "canonical/model"
"""Folder of the model in a checkpoint. Not directly in it: there, ``Trainer._load_from_checkpoint``
takes each folder with an adapter for a further adapter of the training."""


class CanonicalSaveCallback(TrainerCallback):  # type: ignore[misc]
    """Saves the model at the end of training and, when asked, at each checkpoint.

    A wrong option, or a folder that cannot be written to, is an error at once, not after training.

    Args:
        trainer: the trainer, to find its tokenizer and its wrapped model; give it after making the
            trainer, by ``callback.trainer = trainer``, or leave it out for an unwrapped model.
        at_checkpoints: also save into ``checkpoint-N/canonical/model`` whenever the trainer saves.
            With a trainer, its checkpoints are then there whole or not at all, see
            :mod:`canonical_saver.checkpoints`.
        at_end: save at the end of training; False leaves that to a call of your own.
        format: as in :func:`canonical_saver.save_model`, like all that follow.
        max_shard_size: bytes of tensors a file at most, or a text such as ``"5GB"``.
        dtype: cast floating-point tensors to it.
        verify: ``layout`` or ``full``.
        checksums: write ``SHA256SUMS``.
        check_replicas: compare what several ranks are said to hold before one of them writes it.
        digest: put a digest of the weights into the report.
        portable: make the files next to the weights fit for readers of other versions.

    Attributes:
        report: what the last save did; None before it.

    Raises:
        RequestError: an option has no meaning, or the trainer's folder cannot be written to.

    Examples:
        >>> trainer.add_callback(CanonicalSaveCallback(trainer, at_checkpoints=True))
    """

    def __init__(
        self,
        trainer: Any = None,
        *,
        at_checkpoints: bool = False,
        at_end: bool = True,
        format: Format = "safetensors",
        max_shard_size: int | str | None = None,
        dtype: torch.dtype | str | None = None,
        verify: Verify = "layout",
        checksums: bool = False,
        check_replicas: bool = True,
        digest: Digest = False,
        portable: bool = True,
    ) -> None:
        self.trainer = trainer
        self.at_checkpoints = at_checkpoints
        self.at_end = at_end
        self._is_part_of_checkpoints = False
        self.report: Report | None = None
        options = parse_options(
            format=format,
            max_shard_size=max_shard_size,
            dtype=dtype,
            verify=verify,
            checksums=checksums,
            check_replicas=check_replicas,
            digest=digest,
            portable=portable,
        )
        self._cfg = {CFG_KEYS.get(option, option): value for option, value in options.items()}
        if trainer is not None:
            self._check(trainer.args)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Find out whether the model can be saved before it is trained."""
        self._check(args)
        if self.at_checkpoints and self.trainer is not None:
            self._is_part_of_checkpoints = make_checkpoints_whole(self.trainer, self._save_into)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save the trained model into the trainer's output folder; runs on every rank."""
        if self.at_end:
            self._save(self._folder(args), kwargs)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save beside a checkpoint that was just written, if asked for; runs on every rank."""
        if self.at_checkpoints and not self._is_part_of_checkpoints:
            checkpoint = self._folder(args) / f"checkpoint-{state.global_step}"
            self._save(checkpoint / PLACE, kwargs)

    def _save_into(self, checkpoint: Path) -> None:
        """Save into a checkpoint that has not got its name yet."""
        self._save(checkpoint / PLACE, {})

    def _check(self, args: Any) -> None:
        if args.process_index == 0:  # other ranks may be on machines that do not have the folder
            _check_writable(self._folder(args))

    def _folder(self, args: Any) -> Path:
        """Where the trainer writes: a trial of a hyperparameter search has a folder of its own."""
        find = getattr(self.trainer, "_get_output_dir", None)
        return Path(find(getattr(self.trainer, "_trial", None)) if find else args.output_dir)

    def _save(self, folder: Path, given: dict[str, Any]) -> None:
        trainer = self.trainer
        if trainer is None:
            trainer = SimpleNamespace(processing_class=given.get("processing_class"))
        model = given["model"] if self.trainer is None else self.trainer.model
        cfg = self._cfg | {"output_dir": str(folder)}
        self.report = save_trained_model(cfg, trainer, model)


def save_at_checkpoints(cfg: Any, trainer: Any, model: Any) -> None:
    """Save at each checkpoint; what a training framework calls before training, on every rank.

    The counterpart of :func:`canonical_saver.save_trained_model`, with the same arguments.

    Args:
        cfg: the training configuration, with the options of a save.
        trainer: the trainer, which has not trained yet.
        model: not used; the trainer's own is saved.

    Raises:
        RequestError: the trainer's folder cannot be written to.

    Examples:
        >>> save_at_checkpoints({"save_dtype": "bfloat16"}, trainer, model)
    """
    options = {option: lookup(cfg, key) for option, key in CFG_KEYS.items()}
    options["max_shard_size"] = lookup(cfg, "max_shard_size")
    given = {option: value for option, value in options.items() if value is not None}
    callback = CanonicalSaveCallback(trainer, at_checkpoints=True, at_end=False, **given)
    trainer.add_callback(callback)


def _check_writable(folder: Path) -> None:
    """Find out long before a save whether its folder can be made or written to.

    Raises:
        RequestError: something is in its place, or it may not be written to.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise RequestError(f"output_dir: expected a folder, found a file: {there}; name another")
    if not os.access(there, os.W_OK | os.X_OK):
        raise RequestError(
            f"output_dir: expected a folder that can be written to, found {there}, which cannot; "
            "name another, or change its permissions"
        )
