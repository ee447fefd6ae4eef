"""A callback for ``transformers.Trainer`` that proves what the Trainer saves."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from canonical_saver.collectives import Ranks
from canonical_saver.errors import LostRankError, ProofError, SaveError
from canonical_saver.proving.proof import Proof
from canonical_saver.proving.prove import prove
from canonical_saver.publishing.stale_files import weight_files

_log = logging.getLogger("canonical_saver")


class ProveCallback(TrainerCallback):  # type: ignore[misc]
    """Proves each checkpoint that the Trainer writes, and its output folder at the end.

    The output folder is proven at the end of training if weights were written to it since the
    beginning: those of an earlier training are nobody's fault. A save that comes after the end, as
    ``trainer.save_model()``, is proven by :meth:`prove`.

    Args:
        trainer: the trainer, to find its tokenizer and its wrapped model; give it after making the
            trainer, by ``callback.trainer = trainer``, or leave it out for an unwrapped model.
        strict: raise an error on every rank, and so end the training, where a folder is not the
            model; by default it is logged.

    Attributes:
        proofs: what was proven, by folder, in order.

    Examples:
        >>> trainer.add_callback(ProveCallback(trainer, strict=True))
    """

    def __init__(self, trainer: Any = None, *, strict: bool = False) -> None:
        self.trainer = trainer
        self.strict = strict
        self.proofs: dict[Path, Proof] = {}
        self._before: dict[str, int] = {}

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Prove the checkpoint that was just written; runs on every rank."""
        folder = self._folder(args) / f"checkpoint-{state.global_step}"
        self.prove(folder, kwargs.get("model"), kwargs.get("processing_class"))

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Remember what lies in the output folder before."""
        self._before = _weight_files(self._folder(args))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Prove what was written to the output folder; runs on every rank."""
        root = self._folder(args)
        written = Ranks.current().on_first("look", lambda: _weight_files(root) != self._before)
        if written:
            self.prove(root, kwargs.get("model"), kwargs.get("processing_class"))

    def prove(self, folder: str | Path, model: Any = None, tokenizer: Any = None) -> Proof | None:
        """Prove a folder; called on every rank.

        Args:
            folder: the folder.
            model: the model, by default the trainer's.
            tokenizer: the tokenizer, by default the trainer's.

        Returns:
            The proof; None where none could be made, which is logged.

        Raises:
            SaveError: the same on every rank, if ``strict`` and the folder is not the model, or if
                a rank was lost.
        """
        root = Path(folder).absolute()
        live = model if self.trainer is None else self.trainer.model
        given = tokenizer if self.trainer is None else None
        try:
            proof = prove(live, root, trainer=self.trainer, tokenizer=given)
        except SaveError as error:
            if self.strict or isinstance(error, LostRankError):
                raise
            _log.error("%s", error)
            return None
        self.proofs[root] = proof
        if not proof.ok and self.strict:
            raise ProofError(str(proof))
        if Ranks.current().rank == 0:
            _log.log(logging.INFO if proof.ok else logging.ERROR, "%s", proof)
        return proof

    def _folder(self, args: Any) -> Path:
        """Where the trainer writes: a trial of a hyperparameter search has a folder of its own."""
        find = getattr(self.trainer, "_get_output_dir", None)
        return Path(find(getattr(self.trainer, "_trial", None)) if find else args.output_dir)


def _weight_files(root: Path) -> dict[str, int]:
    """The weight files in a folder, and when each was last written, in nanoseconds."""
    found = {}
    for adapter in (False, True):
        for name in weight_files(root, adapter=adapter):
            with suppress(OSError):  # it goes while it is looked for
                found[name] = (root / name).stat().st_mtime_ns
    return found
