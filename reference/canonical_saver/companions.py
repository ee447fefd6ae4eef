"""The files beside the weights: configuration, generation, tokenizer, adapter, model card, code."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from canonical_saver.entries import Weights
from canonical_saver.errors import RequestError
from canonical_saver.modules import original_class
from canonical_saver.stale import CARD, card_mark, has_mark
from canonical_saver.weights import is_peft


def validate(model: nn.Module) -> None:
    """Find out before the first byte what could not be written after the last.

    Raises:
        RequestError: the generation configuration contradicts itself.
    """
    whole = _saved_with_generation(model)
    if whole is None:
        return
    try:
        copy.deepcopy(whole.generation_config).validate(strict=True)
    except ValueError as error:
        raise RequestError(f"generation_config is not valid, please correct it: {error}") from error


def write(
    model: nn.Module,
    sets: list[Weights],
    tokenizer: Any,
    folder: Path,
    output_dir: Path,
    dtype: torch.dtype | None,
) -> None:
    """Write everything but the weights into a folder; for rank 0.

    Args:
        model: the unwrapped model; it and its configuration stay as they are.
        sets: what is saved.
        tokenizer: tokenizer or processor, or None.
        folder: where to write.
        output_dir: where the files will lie in the end.
        dtype: the dtype that was asked for, if any.
    """
    if is_peft(model):
        for weights in sets:
            _write_adapter_config(model, weights, folder / weights.folder)
            _write_card(model, weights, weights.folder, folder, output_dir)
        if all(weights.folder for weights in sets):
            _write_card(model, sets[0], "", folder, output_dir)
        if (own := _saved_with_generation(model)) and not (output_dir / "config.json").exists():
            copy.deepcopy(own.generation_config).save_pretrained(folder)
    elif hasattr(getattr(model, "config", None), "save_pretrained"):
        _write_config(model, sets[0], folder, dtype)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)


def _saved_with_generation(model: Any) -> Any:
    """The model whose generation configuration is saved, None if none is.

    PEFT leaves out that of the base; transformers saves it with the adapters that it put on.
    """
    own = model
    if is_peft(model):
        own = model.get_base_model() if getattr(model, "by_transformers", False) else None
    return own if own is not None and _generates(own) else None


def _generates(model: Any) -> bool:
    able = getattr(model, "can_generate", None)
    return callable(able) and bool(able()) and getattr(model, "generation_config", None) is not None


def _write_config(model: Any, weights: Weights, folder: Path, dtype: torch.dtype | None) -> None:
    config = copy.deepcopy(model.config)
    kind = original_class(model)
    config.architectures = [kind.__name__]
    floating = [s.dtype for s in weights.memory.values() if s.dtype.is_floating_point]
    if floating:
        config.dtype = str(dtype or floating[0]).removeprefix("torch.")
    if getattr(kind, "_auto_class", None) is not None:
        from transformers.dynamic_module_utils import custom_object_save

        # The copied code is that of the class as written, not of FSDP2's class before it.
        custom_object_save(kind.__new__(kind), folder, config=config)
    config.save_pretrained(folder)
    if _generates(model):
        copy.deepcopy(model.generation_config).save_pretrained(folder)


def _base_name(model: Any, config: Any) -> str | None:
    base = model.get_base_model()
    name = config.base_model_name_or_path or getattr(base, "name_or_path", None)
    return name or getattr(getattr(base, "config", None), "_name_or_path", None) or None


def _write_adapter_config(model: Any, weights: Weights, folder: Path) -> None:
    config = copy.deepcopy(weights.config)
    mapping = None
    if not getattr(model, "by_transformers", False):  # which writes it as it is
        config.inference_mode = True
        config.base_model_name_or_path = _base_name(model, config)
        if config.task_type is None:
            kind = original_class(model.get_base_model())
            mapping = {"base_model_class": kind.__name__, "parent_library": kind.__module__}
    for key, value in vars(config).items():
        if isinstance(value, set):  # the order of a set of names differs from process to process
            setattr(config, key, sorted(value))
    folder.mkdir(exist_ok=True)
    config.save_pretrained(str(folder), auto_mapping_dict=mapping)


def _write_card(model: Any, weights: Weights, place: str, folder: Path, output_dir: Path) -> None:
    """Write an adapter's model card to a place in the folder, unless somebody else's lies there."""
    if (output_dir / place / CARD).exists() and not has_mark(output_dir, place):
        return
    config = model.peft_config[weights.adapter]
    base = _base_name(model, config)
    kind = original_class(model.get_base_model()).__name__
    method = str(config.peft_type).rpartition(".")[2]
    where = f', subfolder="{weights.folder}"' if weights.folder else ""
    lines = ["---"]
    if base:
        lines.append(f'base_model: "{base}"')
    lines += ["library_name: peft", "tags:", f"- {method.lower()}", "---", card_mark(place), ""]
    lines += [f"# {method} adapter", ""]
    lines += [f"Trained with {method} (PEFT) on `{base or kind}`.", "", "```python"]
    lines += ["from peft import PeftModel", f"from transformers import {kind}", ""]
    lines += [f'base = {kind}.from_pretrained("{base or "the base model"}")']
    lines += [f'model = PeftModel.from_pretrained(base, "{output_dir.name}"{where})', "```", ""]
    (folder / place / CARD).write_text("\n".join(lines), encoding="utf-8")
