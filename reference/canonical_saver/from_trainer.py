"""What a training framework passes at the end, as a request."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from canonical_saver.request import CFG_KEYS, Request, build, can_be_saved

_log = logging.getLogger("canonical_saver")


def lookup(cfg: Any, key: str) -> Any:
    """Read one key of a configuration: a mapping, or any object with attributes.

    A missing key is None, as in axolotl's ``DictDefault``.
    """
    if cfg is None:
        return None
    if isinstance(cfg, Mapping):
        return cfg.get(key)
    return getattr(cfg, key, None)


def from_training(cfg: Any, trainer: Any, model: nn.Module) -> Request:
    """Make a request of what a training framework passes at the end.

    Args:
        cfg: the training configuration; ``output_dir``, ``save_safetensors``, ``max_shard_size``,
            ``save_format``, ``save_dtype``, ``save_verify``, ``save_checksums``,
            ``save_check_replicas``, ``save_digest``, ``save_portable``, ``base_model``,
            ``merge_lora`` and ``relora`` (with ``load_in_4bit`` and ``load_in_8bit``) are read.
        trainer: the trainer, or None; its tokenizer, or its data collator's, and its wrapped model
            are looked up.
        model: the model, wrapped or not.

    Raises:
        RequestError: a value has no meaning.
    """
    output_dir = lookup(cfg, "output_dir")
    arguments = getattr(trainer, "args", None)
    if output_dir is None:
        output_dir = lookup(arguments, "output_dir")
    options = {option: lookup(cfg, key) for option, key in CFG_KEYS.items()}
    if options["format"] is None and lookup(cfg, "save_safetensors") is False:
        options["format"] = "torch"
    quantized = lookup(cfg, "load_in_4bit") or lookup(cfg, "load_in_8bit")
    # As axolotl has it: a quantized base cannot take the merged weights.
    relora = "relora" if lookup(cfg, "relora") and not quantized else ""
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
    base_model = lookup(cfg, "base_model")
    return build(
        model,
        output_dir,
        roots=_roots(trainer, model),
        max_shard_size=lookup(cfg, "max_shard_size"),
        **options,
        tokenizer=tokenizer,
        progress=False if lookup(arguments, "disable_tqdm") else None,
        merge="merge_lora" if lookup(cfg, "merge_lora") else relora,
        names=CFG_KEYS,
        base_model=str(base_model) if isinstance(base_model, str | Path) else None,
    )


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
