"""What belongs in a save, under which names.

A full save is the model's persistent tensors, tied ones once, named as on the hub. An adapter save
is all that PEFT would reload, by PEFT's own rules for names, decided from the model and not from a
configuration that may have gone astray. Only names, shapes and places are handled here; no data.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from canonical_saver import conversion
from canonical_saver.conversion import Entry, direct
from canonical_saver.engines import Engines
from canonical_saver.errors import WeightsError
from canonical_saver.modules import named_modules, unwrap
from canonical_saver.sources import Source, whole


@dataclass(frozen=True)
class Weights:
    """The tensors of one weight file, or of one set of shards.

    Attributes:
        folder: where they go, relative to the output folder; "" is the folder itself.
        stem: file name without its ending.
        entries: the tensors in the order in which files are filled.
        memory: the sources of computed tensors, by their names in memory.
        adapter: the name of the PEFT adapter, None for a full save.
    """

    folder: str
    stem: str
    entries: tuple[Entry, ...]
    memory: dict[str, Source]
    adapter: str | None = None


def find_model(roots: tuple[nn.Module, ...]) -> Any:
    """Find the model to save among everything that was handed over, without wrappers.

    Preference tuning hands over the base model while the trainer trains the PEFT model around it;
    then the PEFT model is the one.
    """
    model: Any = unwrap(roots[0])
    for root in roots[1:]:
        outer: Any = unwrap(root)
        if is_peft(outer) and not is_peft(model):
            held = any(module is model for _, module in named_modules(outer))
            if held or outer.get_base_model() is model:
                return outer
    return model


def merged(model: Any, engines: Engines) -> Any:
    """Make a copy of a PEFT model's base with the adapter merged into it, as ReLoRA needs it.

    Raises:
        WeightsError: the weights are sharded, so no rank could merge them.
    """
    if not all(
        source.replicated for _, m in named_modules(model) for _, source in engines.parameters(m)
    ):
        raise WeightsError(
            "a ReLoRA adapter can only be merged where every rank holds the whole model; "
            "train it with DDP or ZeRO-2, or save the adapter without relora"
        )
    return copy.deepcopy(model).merge_and_unload()


def is_peft(model: nn.Module) -> bool:
    """Whether a model carries PEFT adapters."""
    from peft import PeftModel

    return isinstance(model, PeftModel)


def collect(model: Any, engines: Engines) -> list[Weights]:
    """Find all that a save of the model holds.

    Args:
        model: the unwrapped model, PEFT or not.
        engines: where its tensors lie.

    Raises:
        WeightsError: nothing to save, or a name is used twice.
    """
    sources = dict(_state(model, engines))
    if is_peft(model):
        sets = [_adapter(model, engines, sources, name) for name in model.peft_config]
    else:
        sets = [_full(model, sources)]
    for weights in sets:
        names = [entry.name for entry in weights.entries]
        if not names or len(set(names)) != len(names):
            raise WeightsError(
                f"expected tensors with names of their own in '{weights.stem}', found "
                f"{len(names)} with {len(set(names))} names; is the model a trained one?"
            )
    return sets


def _state(model: nn.Module, engines: Engines) -> Iterator[tuple[str, Source]]:
    """The state dict by places instead of data, in its order and under canonical names."""
    for prefix, module in named_modules(model):
        own = [*engines.parameters(module), *engines.buffers(module)]
        own += engines.extras(module, {name for name, _ in own})
        for name, source in own:
            yield f"{prefix}.{name}" if prefix else name, source


def _full(model: nn.Module, sources: dict[str, Source]) -> Weights:
    for key in getattr(model, "_keys_to_ignore_on_save", None) or ():
        sources.pop(key, None)
    for target, origin in _reloaded_ties(model, sources):
        if (
            target in sources
            and origin in sources
            and sources[target].identity == sources[origin].identity
        ):
            del sources[target]
    entries = tuple(conversion.to_hub(model, sources))
    return Weights("", "model", entries, sources)


def _reloaded_ties(model: nn.Module, sources: dict[str, Source]) -> list[tuple[str, str]]:
    """Pairs (target, origin) that loading will tie again, by each submodel's own declaration.

    What is tied in memory only, against the configuration, has to be saved twice: loading gives a
    target that is neither tied nor in the file random values.
    """
    ties: list[tuple[str, str]] = []
    for prefix, module in named_modules(model):
        declared = getattr(module, "_tied_weights_keys", None)
        config = getattr(module, "config", None)
        if not isinstance(declared, dict) or not getattr(config, "tie_word_embeddings", False):
            continue
        inside = f"{prefix}." if prefix else ""
        names = sorted(n.removeprefix(inside) for n in sources if n.startswith(inside))
        for target, origin in declared.items():
            targets = [n for n in names if re.search(f"^{target}", n)]
            origins = [n for n in names if re.search(f"^{origin}", n)]
            ties += [
                (inside + name, inside + origins[number % len(origins)])
                for number, name in enumerate(targets)
                if origins
            ]
    return ties


class _Unwrapped:
    """A PEFT model as its key rules expect it: no wrapper among its modules' names."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]:
        return named_modules(self._model)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def _adapter(model: Any, engines: Engines, sources: dict[str, Source], adapter: str) -> Weights:
    """The tensors of one adapter, as ``peft.get_peft_model_state_dict`` selects and names them.

    That function itself would be wrong here: it reads names with wrappers in them, calls
    ``state_dict`` (a gather under FSDP1), and looks for resized embeddings on the network.
    """
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
    from peft.utils.other import AuxiliaryTrainingWrapper, ModulesToSaveWrapper

    config = model.peft_config[adapter]
    tuner = PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type]
    view = _Unwrapped(model)
    others = [name for name in model.peft_config if name != adapter]
    state: dict[str, Any] = dict(sources)
    if not config.is_prompt_learning:
        state = {
            key: source
            for key, source in sources.items()
            if not any(f".{name}." in key or key.endswith(f".{name}") for name in others)
        } or state
    virtual_tokens = f"prompt_encoder.{adapter}.embedding.weight"
    selected: dict[str, Any]
    if virtual_tokens in state and not _computes_its_prompt(config):
        selected = {"prompt_embeddings": state[virtual_tokens]}
    else:
        selected = tuner._get_adapter_state_dict(
            model=view,
            config=config,
            adapter_name=adapter,
            state_dict=state,
            unwanted_adapter_names=others,
        )
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
        selected.update({f"{name}.{key}": value for key, value in own.items()})
    selected.update(_embeddings(model, config, state))
    entries = []
    for key, value in selected.items():
        source = value
        if isinstance(value, torch.Tensor):  # prompt learning computes its embeddings
            source = engines.on_first_rank(whole(value))
        entries.append(direct(tuner._remove_adapter_name_from_key(key, adapter), source))
    folder = "" if adapter == "default" else adapter
    return Weights(folder, "adapter_model", tuple(entries), {}, adapter)


def _computes_its_prompt(config: Any) -> bool:
    """Whether the virtual tokens are the output of a network instead of its weight."""
    simple = str(config.peft_type).rpartition(".")[2] in ("PROMPT_TUNING", "PREFIX_TUNING")
    return not simple or bool(getattr(config, "prefix_projection", False))


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
    from transformers import PreTrainedConfig
    from transformers.utils import cached_file

    now = getattr(getattr(model, "config", None), "vocab_size", None)
    base = getattr(config, "base_model_name_or_path", None)
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
