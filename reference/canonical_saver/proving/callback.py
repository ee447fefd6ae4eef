"""A callback for ``transformers.Trainer`` that proves what the Trainer saves."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from canonical_saver.collectives import Ranks
from canonical_saver.errors import ProofError
from canonical_saver.proving.proof import Proof
from canonical_saver.proving.prove import prove
from canonical_saver.proving.weight_files import contents_of

_log = logging.getLogger("canonical_saver")


class ProveCallback(TrainerCallback):  # type: ignore[misc]
    """Proves each checkpoint that the Trainer writes, and its output folder at the end.

    The output folder is proven at the end of training if there are weights in it. A save that comes
    after the end, as ``trainer.save_model()``, is proven by :meth:`prove`.

    Args:
        trainer: the trainer, to find its tokenizer and its wrapped model; give it after making the
            trainer, by ``callback.trainer = trainer``, or leave it out for an unwrapped model.
        strict: raise an error on every rank, and so end the training, where a folder is not the
            model; by default it is logged.

    Attributes:
        proofs: what was proven, by folder, in order.
    """

    def __init__(self, trainer: Any = None, *, strict: bool = False) -> None:
        self.trainer = trainer
        self.strict = strict
        self.proofs: dict[Path, Proof] = {}

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Prove the checkpoint that was just written; runs on every rank."""
        folder = self._folder(args) / f"checkpoint-{state.global_step}"
        self.prove(folder, kwargs.get("model"), kwargs.get("processing_class"))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Prove what lies in the output folder; runs on every rank."""
        self.prove(
            self._folder(args), kwargs.get("model"), kwargs.get("processing_class"), needed=False
        )

    def prove(
        self, folder: str | Path, model: Any = None, tokenizer: Any = None, *, needed: bool = True
    ) -> Proof | None:
        """Prove a folder; called on every rank.

        Args:
            folder: the folder.
            model: the model, by default the trainer's.
            tokenizer: the tokenizer, by default the trainer's.
            needed: a folder without weights is a fault.

        Returns:
            The proof; None where there is nothing to prove and nothing was needed, or where the
            folder could not be read.

        Raises:
            ProofError: the same on every rank, if ``strict`` and the folder is not the model.
        """
        root = Path(folder).absolute()
        if not needed and not Ranks.current().on_first("look", lambda: _holds_weights(root)):
            return None
        live = model if self.trainer is None else self.trainer.model
        given = tokenizer if self.trainer is None else None
        try:
            proof = prove(live, root, trainer=self.trainer, tokenizer=given)
        except ProofError as error:
            if self.strict:
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


def _holds_weights(root: Path) -> bool:
    try:
        contents = contents_of(root)
    except ProofError:
        return False
    return contents.whole or "" in contents.adapters
