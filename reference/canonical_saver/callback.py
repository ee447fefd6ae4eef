"""A callback for ``transformers.Trainer`` that saves the canonical way."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from transformers import TrainerCallback

from canonical_saver.save import save_trained_model


class CanonicalSaveCallback(TrainerCallback):  # type: ignore[misc]
    """Saves the model at the end of training and, when asked, at each checkpoint.

    Args:
        trainer: the trainer, to find its tokenizer and its wrapped model; give it after making the
            trainer, by ``callback.trainer = trainer``, or leave it out for an unwrapped model.
        at_checkpoints: also save into ``checkpoint-N/canonical`` whenever the trainer saves.
        **options: further keys of the configuration, as ``max_shard_size`` or ``save_format``.
    """

    def __init__(
        self, trainer: Any = None, *, at_checkpoints: bool = False, **options: Any
    ) -> None:
        self.trainer = trainer
        self.at_checkpoints = at_checkpoints
        self.options = options

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save the trained model into ``args.output_dir``; runs on every rank."""
        self._save(Path(args.output_dir), kwargs)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save beside a checkpoint that was just written, if asked for; runs on every rank."""
        if self.at_checkpoints:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}" / "canonical"
            self._save(folder, kwargs)

    def _save(self, folder: Path, given: dict[str, Any]) -> None:
        trainer = self.trainer
        if trainer is None:
            trainer = SimpleNamespace(processing_class=given.get("processing_class"))
        model = given["model"] if self.trainer is None else self.trainer.model
        save_trained_model(self.options | {"output_dir": str(folder)}, trainer, model)
