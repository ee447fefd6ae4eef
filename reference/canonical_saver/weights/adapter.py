"""What belongs in the save of an adapter: all that PEFT would reload, under PEFT's names.

It is decided from the model and not from a configuration that may have gone astray.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from peft.tuners import AdaptionPromptModel, XLoraModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.constants import EMBEDDING_LAYER_NAMES
from peft.utils.other import AuxiliaryTrainingWrapper, ModulesToSaveWrapper
from torch import nn
from transformers import PreTrainedConfig
from transformers.utils import cached_file

from canonical_saver.weights import changed_buffers, merged_layers, peft_rules, state_dict
from canonical_saver.weights.adapter_names import folder_of
from canonical_saver.weights.adapter_places import places_of
from canonical_saver.weights.engines import Engines
from canonical_saver.weights.injected import InjectedModel
from canonical_saver.weights.module_tree import named_modules, unwrap
from canonical_saver.weights.own_rules import has_own_state_dict
from canonical_saver.weights.saved_tensors import WeightSet, direct
from canonical_saver.weights.tensors import ModelTensor
from canonical_saver.weights.unselected import listed, loadable, trained_names, unselected

_log = logging.getLogger("canonical_saver")


def weight_sets(
    model: Any, model_tensors: Mapping[str, ModelTensor], engines: Engines
) -> list[WeightSet]:
    """Find the tensors of each adapter, and what was trained next to them.

    Args:
        model: the unwrapped PEFT model.
        model_tensors: its tensors by their names in memory.
        engines: where they lie.

    Raises:
        WeightsError: something that was trained cannot be saved so that PEFT loads it again.
    """
    found = [weights(model, model_tensors, name, engines) for name in _own_adapters(model)]
    trained = trained_names(model, engines) | changed_buffers.find(model, _names_of_base(model))
    left = unselected(trained, model_tensors, [one.saved_tensors for one in found])
    beside = loadable(model, left)
    if not beside:
        return _checked(model, model_tensors, found)
    message = (
        f"saved {listed(beside)} with the adapter: trained, but no part of what PEFT saves. "
        "PeftModel.from_pretrained loads it; other readers of adapters may not, so train it by "
        "modules_to_save where you can"
    )
    with_them = []
    for one in found:
        around = _layers_around(model, str(one.adapter))
        extra = tuple(direct(_without(around, name), model_tensors[name]) for name in beside)
        told = (*one.warnings, message)
        with_them.append(replace(one, saved_tensors=one.saved_tensors + extra, warnings=told))
    return _checked(model, model_tensors, with_them)


def _checked(
    model: Any, model_tensors: Mapping[str, ModelTensor], found: list[WeightSet]
) -> list[WeightSet]:
    merged_layers.refuse(
        model, model_tensors, [saved for one in found for saved in one.saved_tensors]
    )
    return found


def _names_of_base(model: Any) -> list[str | None]:
    """The names by which the base may be known: folders, or ids on the hub."""
    found = [
        getattr(config, "base_model_name_or_path", None) for config in model.peft_config.values()
    ]
    return [*found, getattr(model.get_base_model(), "name_or_path", None)]


def weights(
    model: Any, model_tensors: Mapping[str, ModelTensor], adapter: str, engines: Engines
) -> WeightSet:
    """Find the tensors of one adapter, as ``get_peft_model_state_dict`` selects and names them.

    That function itself would be wrong here: it reads names with wrappers in them, calls
    ``state_dict`` (a gather under FSDP1), looks for resized embeddings on the network, and drops
    tensors of other modules that are called like another adapter.

    Args:
        model: the unwrapped PEFT model.
        model_tensors: its tensors by their names in memory.
        adapter: the name of the adapter.
        engines: where the tensors lie.
    """
    config = model.peft_config[adapter]
    state = dict(model_tensors)
    if not config.is_prompt_learning:
        of_others = _places_of_others(model, adapter)
        state = {k: v for k, v in model_tensors.items() if not f"{k}.".startswith(of_others)}
        state |= _set_aside(model, adapter, engines)
    prompt = state.get(f"prompt_encoder.{adapter}.embedding.weight")
    inputs: dict[str, ModelTensor] = {}
    convert: Any = dict
    if prompt is not None and not _computes_its_prompt(config):
        saved_tensors = [direct("prompt_embeddings", prompt)]
    else:
        selection = peft_rules.select(model, adapter, state, engines.on_first_rank)
        saved_tensors = list(selection.saved_tensors)
        inputs, convert, config = selection.model_tensors, selection.convert, selection.config
    beside = _embeddings(model, adapter, config, state, engines)
    beside |= _beside_the_tuner(model, adapter, state, engines)
    copied = _copies_of_whole_modules(model)
    saved_tensors = [
        saved
        for saved in saved_tensors
        if saved.name not in beside and not saved.name.startswith(copied)
    ]
    saved_tensors += [direct(name, model_tensor) for name, model_tensor in beside.items()]
    if around := _layers_around(model, adapter):
        saved_tensors = [
            replace(saved, name=_without(around, saved.name)) for saved in saved_tensors
        ]
    in_root = model.in_root if isinstance(model, InjectedModel) else "default"
    folder = folder_of(adapter, in_root)
    return WeightSet(
        folder, "adapter_model", tuple(saved_tensors), inputs, convert, adapter, config
    )


def _own_adapters(model: Any) -> list[str]:
    """The adapters to save; those that X-LoRA mixes lie where its configuration says."""
    if not isinstance(model.base_model, XLoraModel):
        return list(model.peft_config)
    return [name for name, c in model.peft_config.items() if str(c.peft_type).endswith("XLORA")]


def _set_aside(model: Any, adapter: str, engines: Engines) -> dict[str, ModelTensor]:
    """The tensors of an adaption prompt that is not active; PEFT takes its modules off."""
    modules = getattr(model.base_model, "_cached_adapters", {}).get(adapter, ())
    if not modules:
        return {}
    places = {id(module): name for name, module in named_modules(model)}
    found: dict[str, ModelTensor] = {}
    for parent, module in zip(model.base_model._parents[adapter], modules, strict=True):
        start = f"{places[id(unwrap(parent))]}.{model.peft_config[adapter].target_modules}."
        found |= {start + name: model_tensor for name, model_tensor in engines.parameters(module)}
    return found


def _places_of_others(model: Any, adapter: str) -> tuple[str, ...]:
    """Beginnings of the names of other adapters' tensors.

    An adaption prompt is in no dictionary of adapters while it is active.
    """
    adapters = set(model.peft_config)
    places = []
    tuner: Any = model.base_model
    active = getattr(tuner, "_active_adapter", adapter)
    if isinstance(tuner, AdaptionPromptModel) and active != adapter:
        target = model.peft_config[active].target_modules
        parents = {id(unwrap(parent)) for parent in tuner._parents[active]}
        for name, parent in named_modules(model):
            if id(parent) in parents:
                prompt: Any = parent._modules[target]
                places += [f"{name}.{target}.{own}." for own in unwrap(prompt)._parameters]
    return (*places, *places_of(model, adapters - {adapter}))


def _layers_around(model: Any, adapter: str) -> list[str]:
    """Beginnings of names in layers that are there for other adapters only."""
    found = []
    for name, module in named_modules(model) if len(model.peft_config) > 1 else ():
        if isinstance(module, BaseTunerLayer) and adapter not in module._get_available_adapters():
            found.append(f"{name}.base_layer.")
    return sorted(found, key=len, reverse=True)


def _without(around: list[str], name: str) -> str:
    """The name of a tensor where the layers around it are not there.

    Whoever loads the adapter puts it on a model without them, or around them.
    """
    for place in around:
        if name.startswith(place):
            name = place.removesuffix("base_layer.") + name.removeprefix(place)
    return name


def _beside_the_tuner(
    model: Any, adapter: str, state: dict[str, ModelTensor], engines: Engines
) -> dict[str, ModelTensor]:
    """The modules that are trained whole, by rules of their own if they have some, and tokens."""
    found: dict[str, ModelTensor] = {}
    for name, module in named_modules(model):
        if not isinstance(module, AuxiliaryTrainingWrapper) or adapter not in module._adapters:
            continue
        inside = {
            k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")
        }
        if isinstance(module, ModulesToSaveWrapper):
            part = f"modules_to_save.{adapter}."
            own = {k.removeprefix(part): v for k, v in inside.items() if k.startswith(part)}
            copied = unwrap(module.modules_to_save[adapter])
            if has_own_state_dict(copied):
                own = dict(state_dict.find(copied, own, engines).model_tensors)
        else:
            own = module.adapter_state_dict(adapter, inside)
        found |= {f"{name}.{key}": value for key, value in own.items()}
    return found


def _copies_of_whole_modules(model: Any) -> tuple[str, ...]:
    """Beginnings of names inside of modules that are trained whole, which have names of their own.

    PEFT's rule for biases takes all of the model: also those of the frozen original, and those of
    the trained copy a second time.
    """
    return tuple(
        f"{name}.{part}."
        for name, module in named_modules(model)
        if isinstance(module, ModulesToSaveWrapper)
        for part in ("original_module", "modules_to_save")
    )


def _computes_its_prompt(config: Any) -> bool:
    """Whether the virtual tokens are the output of a network instead of its weight."""
    if not config.is_prompt_learning:
        return False
    simple = str(config.peft_type).rpartition(".")[2] in ("PROMPT_TUNING", "PREFIX_TUNING")
    return not simple or bool(getattr(config, "prefix_projection", False))


def _embeddings(
    model: Any, adapter: str, config: Any, state: dict[str, ModelTensor], engines: Engines
) -> dict[str, ModelTensor]:
    """Embeddings that a reload would lose: targeted, or with another vocabulary."""
    tokens_only = getattr(config, "trainable_token_indices", None) is not None
    tokens_only = tokens_only or str(config.peft_type).endswith("TRAINABLE_TOKENS")
    grown = _vocabulary_changed(model, config, engines)
    found: dict[str, ModelTensor] = {}
    for layer in _text_embeddings(model.get_base_model()):
        inner: Any = layer
        adapters: set[str] = set()
        if hasattr(inner, "token_adapter"):
            inner = unwrap(inner.token_adapter.get_base_layer())  # it brings the chosen rows alone
        elif hasattr(inner, "original_module"):
            continue  # modules_to_save brings its own tensors
        if isinstance(inner, BaseTunerLayer):
            adapters = inner._get_available_adapters()
            inner = unwrap(inner.get_base_layer())
        for name, module in named_modules(model):
            if module is inner:
                path = name.removesuffix(".base_layer").rpartition(".")[2]
                targeted = path in EMBEDDING_LAYER_NAMES and adapter in adapters and not tokens_only
                if targeted or grown:
                    found.update({k: v for k, v in state.items() if k.startswith(f"{name}.")})
                break
    return found


def _text_embeddings(base: Any) -> Iterator[nn.Module]:
    """The embeddings of tokens at both ends of a model, those that it has."""
    for get in ("get_input_embeddings", "get_output_embeddings"):
        try:
            layer = getattr(base, get)()
        except (AttributeError, NotImplementedError):
            continue  # a model of sounds or images, or none of transformers
        if isinstance(layer, nn.Module):
            layer = unwrap(layer)
            inner = getattr(layer, "base_layer", getattr(layer, "original_module", layer))
            if isinstance(unwrap(inner), nn.Embedding | nn.Linear):
                yield layer


def _vocabulary_changed(model: Any, config: Any, engines: Engines) -> bool:
    """Whether the embeddings have another number of rows than those of the base on disk."""
    now = getattr(model, "config", None)
    base = getattr(config, "base_model_name_or_path", None)
    # PEFT does not tell a second adapter what its base is.
    base = base or getattr(model.get_base_model(), "name_or_path", None)
    if not isinstance(now, PreTrainedConfig) or not base:
        return False
    try:
        path = Path(base) / "config.json"
        if not path.is_file():
            # The base was loaded from the cache; the network is not asked.
            cached = cached_file(base, "config.json", local_files_only=True)
            path = Path(str(cached))
        values, _ = PreTrainedConfig.get_config_dict(path.parent)
        values = _section(values, now.model_type)
        before = type(now).from_dict(values)
    except Exception as error:
        _log.log(
            logging.WARNING if engines.rank == 0 else logging.DEBUG,
            "'%s': expected the base's config.json, to see whether the vocabulary changed, found "
            "%s; the embeddings are taken for unchanged",
            base,
            type(error).__name__,
        )
        return False
    return vocabularies(now.to_dict()) != vocabularies(before.to_dict())


def _section(values: dict[str, Any], model_type: str) -> dict[str, Any]:
    """The part of a configuration that is of a type of model: a base may be a part of a larger one.

    Raises:
        LookupError: no part of it is.
    """
    if values.get("model_type", model_type) == model_type:
        return values
    for part in values.values():
        if isinstance(part, dict) and part.get("model_type") == model_type:
            return part
    raise LookupError(model_type)


def vocabularies(values: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """The sizes of all vocabularies in a configuration, by their dotted places in it."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= vocabularies(value, f"{place}{key}.")
        elif key == "vocab_size":
            found[place + key] = value
    return found
