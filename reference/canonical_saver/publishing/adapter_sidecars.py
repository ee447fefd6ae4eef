"""The files next to the weights of adapters: configurations, model cards, generation."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from canonical_saver.publishing.best_effort import BestEffort
from canonical_saver.publishing.model_card import Card
from canonical_saver.publishing.sidecars import CONFIG, GENERATION, generates, write_settings
from canonical_saver.publishing.stale_files import CARD, card_mark, has_mark
from canonical_saver.weights.module_tree import original_class
from canonical_saver.weights.saved_tensors import WeightSet

_ADAPTER = "adapter_config.json"


def write(model: Any, weight_sets: Sequence[WeightSet], staged: BestEffort) -> None:
    """Write everything but the weights.

    Args:
        model: the unwrapped model with adapters.
        weight_sets: the adapters that are saved.
        staged: where to write.

    Raises:
        OSError: the file system refused a write.
    """
    for weights in weight_sets:
        _write_config(model, weights, staged)
        _write_card(model, weights, weights.folder, staged)
    if all(weights.folder for weights in weight_sets):
        _write_card(model, weight_sets[0], "", staged)
    if (own := _saved_with_generation(model)) and not (staged.output_dir / CONFIG).exists():
        write_settings(GENERATION, own.generation_config, {}, staged)


def _saved_with_generation(model: Any) -> Any:
    """The model whose generation configuration is saved, None if none is.

    PEFT leaves out that of the base; transformers saves it with the adapters that it put on.
    """
    own = model.get_base_model() if getattr(model, "by_transformers", False) else None
    return own if own is not None and generates(own) else None


def _base_name(model: Any, config: Any) -> str | None:
    base = model.get_base_model()
    name = config.base_model_name_or_path or getattr(base, "name_or_path", None)
    return name or getattr(getattr(base, "config", None), "_name_or_path", None) or None


def _write_config(model: Any, weights: WeightSet, staged: BestEffort) -> None:
    name = f"{weights.folder}/{_ADAPTER}" if weights.folder else _ADAPTER
    own = weights.config
    # transformers leaves it false, of an adapter that it has put on.
    settings: dict[str, Any] = {"inference_mode": True}
    mapping = None
    if not getattr(model, "by_transformers", False):  # which writes the rest as it is
        settings |= {"base_model_name_or_path": _base_name(model, own)}
        if own.task_type is None:
            kind = original_class(model.get_base_model())
            mapping = {"base_model_class": kind.__name__, "parent_library": kind.__module__}

    def usual(folder: Path) -> None:
        config = copy.deepcopy(own)
        for key, value in (vars(config) | settings).items():
            # The order of a set of names differs from process to process.
            setattr(config, key, sorted(value) if isinstance(value, set) else value)
        (folder / weights.folder).mkdir(parents=True, exist_ok=True)
        config.save_pretrained(str(folder / weights.folder), auto_mapping_dict=mapping)

    def load(found: dict[str, Any]) -> object:
        return type(own).from_peft_type(**found)

    wrong = staged.attempt(usual, name)
    if wrong:
        from canonical_saver.publishing import plain_settings

        changes = settings | ({"auto_mapping": mapping} if mapping else {})
        held = plain_settings.Held(own, f"model.peft_config[{weights.adapter!r}]", changes)
        plain_settings.write(name, held, wrong, staged, load, needed=True)


def _write_card(model: Any, weights: WeightSet, place: str, staged: BestEffort) -> None:
    """Write an adapter's model card to a place in the folder, unless another owner's is there."""
    output_dir = staged.output_dir
    if (output_dir / place / CARD).exists() and not has_mark(output_dir, place):
        return
    config = model.peft_config[weights.adapter]

    def usual(folder: Path) -> None:
        card = Card(
            base=_base_name(model, config),
            base_class=original_class(model.get_base_model()).__name__,
            method=str(config.peft_type).rpartition(".")[2],
            model=output_dir.name,
            subfolder=weights.folder,
            mark=card_mark(place),
        )
        (folder / place).mkdir(parents=True, exist_ok=True)
        # A name of a folder may hold bytes that are no text.
        (folder / place / CARD).write_text(card.text(), encoding="utf-8", errors="backslashreplace")

    name = f"{place}/{CARD}" if place else CARD
    wrong = staged.attempt(usual, name)
    if wrong:
        staged.warnings.append(
            f"the model card {name} was left out: {wrong}; write one by hand if you like"
        )
