"""The files next to the weights: configuration, generation, tokenizer, adapter, model card, code.

Each is written as its library writes it. Where that fails, the nearest thing that a loader reads is
written, or else nothing, and a warning says so: no sidecar is worth the weights.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from canonical_saver.publishing.best_effort import BestEffort
from canonical_saver.request import Request
from canonical_saver.weights import is_peft
from canonical_saver.weights.module_tree import original_class
from canonical_saver.weights.saved_tensors import WeightSet

CONFIG = "config.json"
GENERATION = "generation_config.json"


@dataclass(frozen=True)
class Written:
    """What came of the files next to the weights.

    Attributes:
        warnings: what is wrong with them, and what to do.
        outdated: files in the output folder that would be taken for those that could not be
            written, relative to it.
        portability: what was done for readers of other versions, and what some cannot read.
        carried: tensors of the base to be saved too, of
            :class:`canonical_saver.weights.base_tensors.BaseTensor`.
    """

    warnings: tuple[str, ...] = ()
    outdated: tuple[str, ...] = ()
    portability: tuple[str, ...] = ()
    carried: tuple[Any, ...] = ()


def write(
    model: nn.Module, weight_sets: list[WeightSet], request: Request, folder: Path
) -> Written:
    """Write everything but the weights into a folder; for rank 0.

    Args:
        model: the unwrapped model; it and its configuration stay as they are.
        weight_sets: what is saved.
        request: how, and where the files will lie in the end.
        folder: where to write.

    Raises:
        OSError: the file system refused a write.
    """
    staged = BestEffort(folder, request.output_dir)
    if is_peft(model):
        from canonical_saver.publishing import adapter_sidecars

        adapter_sidecars.write(model, weight_sets, staged)
    elif hasattr(getattr(model, "config", None), "save_pretrained"):
        _write_config(model, weight_sets[0], staged, request.dtype)
        if generates(model):
            write_settings(GENERATION, model.generation_config, {}, staged)
    if request.tokenizer is not None:
        from canonical_saver.publishing.chat_template import write_tokenizer

        write_tokenizer(request.tokenizer, staged)
    return Written(tuple(staged.warnings), tuple(staged.outdated))


def generates(model: Any) -> bool:
    """Whether a model has a generation configuration that is saved."""
    able = getattr(model, "can_generate", None)
    return callable(able) and bool(able()) and getattr(model, "generation_config", None) is not None


def _write_config(
    model: Any, weights: WeightSet, staged: BestEffort, dtype: torch.dtype | None
) -> None:
    kind = original_class(model)
    settings: dict[str, Any] = {"architectures": [kind.__name__]}
    floating = [s.dtype for s in weights.model_tensors.values() if s.dtype.is_floating_point]
    if floating:
        settings["dtype"] = str(dtype or floating[0]).removeprefix("torch.")
    own = [one for one in (type(model.config), kind) if getattr(one, "_auto_class", None)]
    if own:
        from canonical_saver.publishing.own_code import auto_map

        settings |= auto_map(model.config, own, staged)
    write_settings(CONFIG, model.config, settings, staged)


def write_settings(name: str, config: Any, changes: Mapping[str, Any], staged: BestEffort) -> None:
    """Write a configuration with some changes; the one in memory stays as it is."""

    def usual(folder: Path) -> None:
        made = copy.deepcopy(config)
        for key, value in changes.items():
            setattr(made, key, value)
        made.save_pretrained(folder)

    if wrong := staged.attempt(usual, name):
        from canonical_saver.publishing import plain_settings

        plain_settings.write_own(name, config, changes, wrong, staged)
