"""What a training framework passes at the end, as a request."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from canonical_saver.request import CFG_KEYS, Request, build


def lookup(cfg: Any, key: str) -> Any:
    """Read one key of a configuration: a mapping, any object with attributes, or None.

    A missing key is None, as in axolotl's ``DictDefault``.
    """
    return cfg.get(key) if isinstance(cfg, Mapping) else getattr(cfg, key, None)


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
    parts: dict[str, Any] = {}
    if trainer is not None:
        from canonical_saver import trainer_parts

        parts = trainer_parts.of(trainer, model)
        output_dir = trainer_parts.output_dir(trainer) if output_dir is None else output_dir
    options = {option: lookup(cfg, key) for option, key in CFG_KEYS.items()}
    if options["format"] is None and lookup(cfg, "save_safetensors") is False:
        options["format"] = "torch"
    quantized = lookup(cfg, "load_in_4bit") or lookup(cfg, "load_in_8bit")
    # As axolotl has it: a quantized base cannot take the merged weights.
    relora = "relora" if lookup(cfg, "relora") and not quantized else ""
    base_model = lookup(cfg, "base_model")
    return build(
        model,
        output_dir,
        max_shard_size=lookup(cfg, "max_shard_size"),
        **options,
        **parts,
        merge="merge_lora" if lookup(cfg, "merge_lora") else relora,
        names=CFG_KEYS,
        base_model=str(base_model) if isinstance(base_model, str | Path) else None,
    )
