"""What belongs in the save of an adapter: all that PEFT would reload, under PEFT's names.

It is decided from the model and not from a configuration that may have gone astray.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners._buffer_dict import BufferDict
from peft.tuners.tuners_utils import BaseTuner
from peft.utils.other import AuxiliaryTrainingWrapper, ModulesToSaveWrapper
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import PreTrainedConfig
from transformers.utils import cached_file

from canonical_saver.adapter_names import folder_of
from canonical_saver.entries import Entry, Weights, direct
from canonical_saver.modules import bare, holding, named_modules, unwrap
from canonical_saver.sources import Source

_KNOWS_ITS_NAMES = hasattr(BaseTuner, "_get_adapter_state_dict")
"""Since PEFT 0.21 each kind of adapter has its rules; before, one function has those of all, names
and modules that are trained whole included."""
_DICTIONARIES = (nn.ModuleDict, nn.ParameterDict, BufferDict)


def weights(model: Any, sources: Mapping[str, Source], adapter: str) -> Weights:
    """Find the tensors of one adapter, as ``get_peft_model_state_dict`` selects and names them.

    That function itself would be wrong here: it reads names with wrappers in them, calls
    ``state_dict`` (a gather under FSDP1), and looks for resized embeddings on the network.

    Args:
        model: the unwrapped PEFT model.
        sources: its tensors by their names in memory.
        adapter: the name of the adapter.
    """
    config = model.peft_config[adapter]
    tuner = PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type]
    state = dict(sources)
    if not config.is_prompt_learning:
        of_others = _places_of_others(model, adapter)
        state = {k: v for k, v in sources.items() if not f"{k}.".startswith(of_others)}
    memory: dict[str, Source] = {}
    selected: dict[str, Any]
    if _computes_its_prompt(config):
        memory = {k: v for k, v in state.items() if k.startswith(f"prompt_encoder.{adapter}.")}
        with FakeTensorMode(allow_non_fake_inputs=True):
            shadows = {k: torch.empty(v.shape, dtype=v.dtype) for k, v in memory.items()}
            selected = _prompt(model, adapter, shadows)
    elif f"prompt_encoder.{adapter}.embedding.weight" in state:
        selected = {"prompt_embeddings": state[f"prompt_encoder.{adapter}.embedding.weight"]}
    else:
        selected = _selected(bare(model), adapter, state)
    if _KNOWS_ITS_NAMES:
        # Of these names alone: an adapter may be called like the end of another one.
        selected = {tuner._remove_adapter_name_from_key(k, adapter): v for k, v in selected.items()}
        selected |= _beside_the_tuner(model, adapter, state)
    selected |= _embeddings(model, config, state)
    entries = []
    for name, value in selected.items():
        if isinstance(value, Source):
            entries.append(direct(name, value))
        else:
            entries.append(Entry(name, value.dtype, tuple(value.shape), None, frozenset(memory)))
    folder = folder_of(adapter)
    compute = partial(_prompt, model, adapter)
    return Weights(folder, "adapter_model", tuple(entries), memory, compute, adapter)


def _selected(view: Any, adapter: str, state: dict[str, Any]) -> dict[str, Any]:
    """Apply the rules that are those of the kind of adapter."""
    config = view.peft_config[adapter]
    if not _KNOWS_ITS_NAMES:
        found: dict[str, Any] = get_peft_model_state_dict(
            view, state_dict=state, adapter_name=adapter, save_embedding_layers=False
        )
        return found
    selected: dict[str, Any] = PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type]._get_adapter_state_dict(
        model=view,
        config=config,
        adapter_name=adapter,
        state_dict=state,
        unwanted_adapter_names=[name for name in view.peft_config if name != adapter],
    )
    return selected


def _places_of_others(model: Any, adapter: str) -> tuple[str, ...]:
    """Beginnings of the names of other adapters' tensors.

    They are in dictionaries of adapters. A module of the base model may be called like an adapter.
    """
    adapters = set(model.peft_config)
    places = []
    for name, module in named_modules(model):
        keys = set(module.keys()) if isinstance(module, _DICTIONARIES) else set()
        if keys and keys <= adapters:
            places += [f"{name}.{key}." for key in keys - {adapter}]
    return tuple(places)


def _beside_the_tuner(model: Any, adapter: str, state: dict[str, Source]) -> dict[str, Source]:
    """The modules that are trained whole, and the trained tokens."""
    found: dict[str, Source] = {}
    for name, module in named_modules(model):
        if not isinstance(module, AuxiliaryTrainingWrapper):
            continue
        inside = {
            k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")
        }
        if isinstance(module, ModulesToSaveWrapper):
            part = f"modules_to_save.{adapter}."
            own = {k.removeprefix(part): v for k, v in inside.items() if k.startswith(part)}
        else:
            own = module.adapter_state_dict(adapter, inside)
        found |= {f"{name}.{key}": value for key, value in own.items()}
    return found


def _computes_its_prompt(config: Any) -> bool:
    """Whether the virtual tokens are the output of a network instead of its weight."""
    if not config.is_prompt_learning:
        return False
    simple = str(config.peft_type).rpartition(".")[2] in ("PROMPT_TUNING", "PREFIX_TUNING")
    return not simple or bool(getattr(config, "prefix_projection", False))


def _prompt(model: Any, adapter: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Compute virtual tokens of the network that makes them."""
    encoder = f"prompt_encoder.{adapter}."
    inside = {name.removeprefix(encoder): tensor for name, tensor in tensors.items()}
    view = bare(model)
    view.prompt_encoder[adapter] = holding(model.prompt_encoder[adapter], inside)
    found = _selected(view, adapter, dict(tensors))
    return {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}


def _embeddings(model: Any, config: Any, state: dict[str, Source]) -> dict[str, Source]:
    """Embeddings that a reload would lose: targeted, trained, or with another vocabulary."""
    base = model.get_base_model()
    if not hasattr(base, "get_input_embeddings"):
        return {}
    tokens_only = getattr(config, "trainable_token_indices", None) is not None
    tokens_only = tokens_only or str(config.peft_type).endswith("TRAINABLE_TOKENS")
    grown = _vocabulary_changed(model, config)
    found: dict[str, Source] = {}
    for layer in (base.get_input_embeddings(), base.get_output_embeddings()):
        if layer is None:
            continue
        layer = unwrap(layer)
        inner: Any = layer
        if hasattr(inner, "original_module"):
            continue  # modules_to_save and trainable tokens bring their own tensors
        if hasattr(inner, "base_layer"):
            inner = unwrap(inner.base_layer)
        targeted = inner is not layer and not tokens_only
        weight = inner._parameters.get("weight")
        trained = weight is not None and weight.requires_grad
        if not (targeted or trained or grown):
            continue
        for name, module in named_modules(model):
            if module is inner:
                prefix = f"{name}."
                found.update({k: v for k, v in state.items() if k.startswith(prefix)})
                break
    return found


def _vocabulary_changed(model: Any, config: Any) -> bool:
    """Whether the embeddings have another number of rows than those of the base on disk."""
    now = getattr(getattr(model, "config", None), "vocab_size", None)
    base = getattr(config, "base_model_name_or_path", None)
    # PEFT does not tell a second adapter what its base is.
    base = base or getattr(model.get_base_model(), "name_or_path", None)
    if not now or not base:
        return False
    try:
        path = Path(base) / "config.json"
        if not path.is_file():
            # The base was loaded from the cache; the network is not asked.
            cached = cached_file(base, "config.json", local_files_only=True)
            path = Path(str(cached))
        values, _ = PreTrainedConfig.get_config_dict(path.parent)
        before = model.config.__class__.from_dict(values).vocab_size
    except Exception:
        return False
    return bool(before != now)
