"""The files beside the weights: configuration, generation, tokenizer, adapter, model card, code.

Each is written as its library writes it. Where that fails, the nearest thing that a loader reads is
written, or else nothing, and a warning says so: no sidecar is worth the weights.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from torch import nn

from canonical_saver.errors import describe
from canonical_saver.publishing.best_effort import BestEffort
from canonical_saver.publishing.model_card import Card
from canonical_saver.publishing.stale_files import CARD, card_mark, has_mark
from canonical_saver.weights import is_peft
from canonical_saver.weights.module_tree import original_class
from canonical_saver.weights.saved_tensors import WeightSet

_CONFIG = "config.json"
_GENERATION = "generation_config.json"
_ADAPTER = "adapter_config.json"


@dataclass(frozen=True)
class Written:
    """What came of the files beside the weights.

    Attributes:
        warnings: what is wrong with them, and what to do.
        outdated: files in the output folder that would be taken for those that could not be
            written, relative to it.
    """

    warnings: tuple[str, ...] = ()
    outdated: tuple[str, ...] = ()


def write(
    model: nn.Module,
    weight_sets: list[WeightSet],
    tokenizer: Any,
    folder: Path,
    output_dir: Path,
    dtype: torch.dtype | None,
) -> Written:
    """Write everything but the weights into a folder; for rank 0.

    Args:
        model: the unwrapped model; it and its configuration stay as they are.
        weight_sets: what is saved.
        tokenizer: tokenizer or processor, or None.
        folder: where to write.
        output_dir: where the files will lie in the end.
        dtype: the dtype that was asked for, if any.

    Raises:
        OSError: the file system refused a write.
    """
    staged = BestEffort(folder)
    if is_peft(model):
        for weights in weight_sets:
            _write_adapter_config(model, weights, staged)
            _write_card(model, weights, weights.folder, staged, output_dir)
        if all(weights.folder for weights in weight_sets):
            _write_card(model, weight_sets[0], "", staged, output_dir)
        if (own := _saved_with_generation(model)) and not (output_dir / _CONFIG).exists():
            _write_generation_config(own.generation_config, staged)
    elif hasattr(getattr(model, "config", None), "save_pretrained"):
        _write_config(model, weight_sets[0], staged, dtype)
        if _generates(model):
            _write_generation_config(model.generation_config, staged)
    if tokenizer is not None:
        _write_tokenizer(tokenizer, staged)
    return Written(tuple(staged.warnings), tuple(staged.outdated(output_dir)))


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


def _write_config(
    model: Any, weights: WeightSet, staged: BestEffort, dtype: torch.dtype | None
) -> None:
    kind = original_class(model)
    settings: dict[str, Any] = {"architectures": [kind.__name__]}
    floating = [s.dtype for s in weights.model_tensors.values() if s.dtype.is_floating_point]
    if floating:
        settings["dtype"] = str(dtype or floating[0]).removeprefix("torch.")
    code = _write_code(type(model.config), staged) | _write_code(kind, staged)
    if code:
        settings["auto_map"] = (getattr(model.config, "auto_map", None) or {}) | code

    def usual(folder: Path) -> None:
        config = copy.deepcopy(model.config)
        for name, value in settings.items():
            setattr(config, name, value)
        config.save_pretrained(folder)

    def values() -> dict[str, Any]:
        return _values(model.config) | settings

    def load(found: dict[str, Any]) -> object:
        return type(model.config).from_dict(found)

    wrong = staged.attempt(usual, _CONFIG)
    if wrong:
        _write_settings(_CONFIG, "model.config", values, wrong, staged, load, needed=True)


def _write_code(kind: Any, staged: BestEffort) -> dict[str, Any]:
    """Copy the code of a class that is not one of transformers; returns where it is found."""
    if getattr(kind, "_auto_class", None) is None:
        return {}
    found: dict[str, Any] = {}

    def usual(folder: Path) -> None:
        from transformers.dynamic_module_utils import custom_object_save

        # The copied code is that of the class as written, not of FSDP2's class before it.
        if custom_object_save(kind.__new__(kind), folder, config=found) is None:
            raise ValueError("it is defined in __main__, which has no name in another process")

    wrong = staged.attempt(usual, f"{kind.__module__.rpartition('.')[2]}.py")
    if not wrong:
        return dict(found["auto_map"])
    staged.warn(
        f"the code of {kind.__name__} was left out ({wrong}): without it the model does not "
        "load; copy the module that defines it into the folder, and name it under auto_map in "
        "config.json"
    )
    return {}


def _write_generation_config(config: Any, staged: BestEffort) -> None:
    def usual(folder: Path) -> None:
        copy.deepcopy(config).save_pretrained(folder)

    def values() -> dict[str, Any]:
        found = _values(config)
        found.pop("compile_config", None)
        return found

    def load(found: dict[str, Any]) -> object:
        return type(config).from_dict(found)

    wrong = staged.attempt(usual, _GENERATION)
    if wrong:
        owner = "model.generation_config"
        _write_settings(_GENERATION, owner, values, wrong, staged, load, needed=False)


def _write_settings(
    name: str,
    owner: str,
    values: Callable[[], dict[str, Any]],
    wrong: str,
    staged: BestEffort,
    load: Callable[[dict[str, Any]], object],
    *,
    needed: bool,
) -> None:
    """Write settings as they are, where their own way to be written refuses them.

    Args:
        name: of the file.
        owner: what has the settings, in words of Python.
        values: finds them.
        wrong: why they were refused.
        staged: where to write.
        load: what a loader will do with them.
        needed: whether the model cannot be loaded without the file, so that it is written even if
            it cannot be loaded with it either.
    """
    dropped: list[str] = []
    refused = ""

    def as_they_are(folder: Path) -> None:
        nonlocal refused
        kept = _storable(values(), dropped)
        text = json.dumps(kept, indent=2, sort_keys=True) + "\n"
        try:
            load(json.loads(text))
        except Exception as error:
            if not needed:
                raise
            refused = describe(error)
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")

    by_hand = f"correct {owner} and write {name} by {owner}.save_pretrained(FOLDER)"
    failed = staged.attempt(as_they_are, name)
    if failed:
        staged.warn(f"{name} was left out, it would not load ({failed}); {by_hand}")
    elif refused:
        staged.warn(f"{name} was written, but does not load ({refused}); {by_hand}")
    elif dropped:
        staged.warn(f"{name} was written without {', '.join(dropped)} ({wrong}); {by_hand}")
    else:
        staged.warn(f"{name} was written as it is, but is not valid ({wrong}); {by_hand}")


def _values(config: Any) -> dict[str, Any]:
    """The settings of a configuration, those that differ from the defaults if it can tell."""
    for way in ("to_diff_dict", "to_dict"):
        try:
            return dict(getattr(config, way)())
        except Exception:  # whatever it is about, the next way may not meet it
            continue
    found = {name: value for name, value in vars(config).items() if not name.startswith("_")}
    kind = getattr(config, "model_type", None)
    return found | ({"model_type": kind} if kind else {})


_LEFT_OUT = object()


def _storable(value: Any, dropped: list[str], place: str = "") -> Any:
    """Turn a value into the nearest one that JSON can hold.

    Args:
        value: the value.
        dropped: gains the places of what JSON cannot hold in any form.
        place: of the value, such as ``rope_parameters.factor``.
    """
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if callable(getattr(value, "tolist", None)):  # tensors and numbers of numpy
        return value.tolist()
    if isinstance(value, set | frozenset):
        value = sorted(value, key=str)
    elif callable(getattr(value, "to_dict", None)):
        value = value.to_dict()
    if isinstance(value, Mapping):
        kept = {
            str(k): _storable(v, dropped, f"{place}.{k}" if place else str(k))
            for k, v in value.items()
        }
        return {k: v for k, v in kept.items() if v is not _LEFT_OUT}
    if isinstance(value, list | tuple):
        found = [_storable(v, dropped, f"{place}[{n}]") for n, v in enumerate(value)]
        return [v for v in found if v is not _LEFT_OUT]
    dropped.append(place)
    return _LEFT_OUT


def _write_tokenizer(tokenizer: Any, staged: BestEffort) -> None:
    wrong = staged.attempt(tokenizer.save_pretrained)
    if not wrong:
        return
    kind = type(tokenizer).__name__
    again = "; then write it by its save_pretrained(FOLDER)"
    without = staged.attempt(lambda folder: _without_template(tokenizer).save_pretrained(folder))
    if without:
        staged.warn(f"{kind} was left out, it cannot be written: {wrong}; correct it{again}")
    else:
        staged.warn(
            f"{kind} was written without its chat template, which is not valid: {wrong}; correct "
            f"chat_template{again}"
        )


def _without_template(tokenizer: Any) -> Any:
    """Copy a tokenizer or processor that has a chat template, leaving it out.

    Raises:
        ValueError: it has none.
    """
    held = getattr(tokenizer, "tokenizer", None)
    both = [one for one in (tokenizer, held) if getattr(one, "chat_template", None) is not None]
    if not both:
        raise ValueError("expected a chat template, found none")
    made = copy.copy(tokenizer)
    made.chat_template = None
    if any(one is held for one in both):
        made.tokenizer = copy.copy(held)
        made.tokenizer.chat_template = None
    return made


def _base_name(model: Any, config: Any) -> str | None:
    base = model.get_base_model()
    name = config.base_model_name_or_path or getattr(base, "name_or_path", None)
    return name or getattr(getattr(base, "config", None), "_name_or_path", None) or None


def _write_adapter_config(model: Any, weights: WeightSet, staged: BestEffort) -> None:
    name = f"{weights.folder}/{_ADAPTER}" if weights.folder else _ADAPTER
    own = weights.config
    settings: dict[str, Any] = {}
    mapping = None
    if not getattr(model, "by_transformers", False):  # which writes it as it is
        settings = {"inference_mode": True, "base_model_name_or_path": _base_name(model, own)}
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

    def values() -> dict[str, Any]:
        return _values(own) | settings | ({"auto_mapping": mapping} if mapping else {})

    def load(found: dict[str, Any]) -> object:
        return type(own).from_peft_type(**found)

    wrong = staged.attempt(usual, name)
    if wrong:
        owner = f"model.peft_config[{weights.adapter!r}]"
        _write_settings(name, owner, values, wrong, staged, load, needed=True)


def _write_card(
    model: Any, weights: WeightSet, place: str, staged: BestEffort, output_dir: Path
) -> None:
    """Write an adapter's model card to a place in the folder, unless somebody else's lies there."""
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
        staged.warn(f"the model card {name} was left out: {wrong}; write one by hand if you like")
