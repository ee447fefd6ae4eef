"""What a trainer has that a save needs: its wrapped model, its tokenizer, its output folder."""

from __future__ import annotations

import logging
from typing import Any

from torch import nn

from canonical_saver.from_trainer import lookup
from canonical_saver.request import can_be_saved

_log = logging.getLogger("canonical_saver")


def of(trainer: Any, model: nn.Module) -> dict[str, Any]:
    """What a trainer says of a request, as arguments of :func:`canonical_saver.request.build`.

    Args:
        trainer: the trainer; its tokenizer, or its data collator's, is looked up.
        model: the model that was passed with it.
    """
    quiet = lookup(getattr(trainer, "args", None), "disable_tqdm")
    return {
        "roots": _roots(trainer, model),
        "tokenizer": _tokenizer(trainer),
        "progress": False if quiet else None,
    }


def output_dir(trainer: Any) -> Any:
    """The output folder of a trainer's arguments; None if there is none."""
    return lookup(getattr(trainer, "args", None), "output_dir")


def _tokenizer(trainer: Any) -> Any:
    tokenizer = getattr(trainer, "processing_class", None)
    if tokenizer is None:
        tokenizer = getattr(trainer, "tokenizer", None)
    if tokenizer is None and (collator := getattr(trainer, "data_collator", None)) is not None:
        from canonical_saver.collator import tokenizer_of

        tokenizer = tokenizer_of(collator)
    if tokenizer is not None and not can_be_saved(tokenizer):
        # A trainer takes anything; after days of training, this is no reason to save nothing.
        _log.warning(
            "the trainer's %s cannot be saved, it has no save_pretrained: save it yourself",
            type(tokenizer).__name__,
        )
        tokenizer = None
    return tokenizer


def _roots(trainer: Any, model: nn.Module) -> tuple[nn.Module, ...]:
    """All places where the model's wrappers may be found.

    A trainer may pass the inner module, while the flat parameter of FSDP1's root or the
    PEFT model around a base model can only be reached from the module that it trains.
    """
    accelerator = getattr(trainer, "accelerator", None)
    candidates = [
        model,
        getattr(trainer, "model", None),
        getattr(trainer, "model_wrapped", None),
        getattr(trainer, "deepspeed", None),
        *(getattr(accelerator, "_models", None) or ()),
    ]
    found: list[nn.Module] = []
    for candidate in candidates:
        if isinstance(candidate, nn.Module) and not any(candidate is other for other in found):
            found.append(candidate)
    return tuple(found)
