"""PEFT's own rules of what belongs to an adapter, applied to tensors without data.

Most rules only pick tensors and name them. Some compute: a prompt from the network that makes it,
the kept ranks of AdaLoRA, the top vectors of VB-LoRA. Which tensors each result is made of is
watched, so that they alone are gathered for it.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import torch
from peft import get_peft_model_state_dict
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners import AdaptionPromptModel, MixedModel
from peft.utils import AuxiliaryTrainingWrapper
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from canonical_saver.errors import WeightsError, describe
from canonical_saver.versions import PEFT_KINDS_KNOW_THEIR_TENSORS
from canonical_saver.weights.adapter_places import places_of
from canonical_saver.weights.bare_copy import bare
from canonical_saver.weights.holding import holding
from canonical_saver.weights.origins import OriginWatch
from canonical_saver.weights.saved_tensors import SavedTensor, direct
from canonical_saver.weights.tensors import ModelTensor, whole

_LOG = logging.getLogger("canonical_saver")


@dataclass(frozen=True)
class Selection:
    """What PEFT's rules select.

    Attributes:
        saved_tensors: the tensors, under PEFT's names.
        model_tensors: what the computed ones are made of, by their names in memory.
        convert: computes them.
        config: the adapter's configuration, as the rules leave it; not the model's own.
    """

    saved_tensors: tuple[SavedTensor, ...]
    model_tensors: dict[str, ModelTensor]
    convert: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
    config: Any


def select(
    model: Any,
    adapter: str,
    state: Mapping[str, ModelTensor],
    on_first_rank: Callable[[ModelTensor], ModelTensor],
) -> Selection:
    """Apply the rules of one adapter's kind.

    Args:
        model: the unwrapped PEFT model; it and its configuration stay as they are.
        adapter: the name of the adapter.
        state: the tensors of the model by their names in memory, without those of other adapters.
        on_first_rank: lets rank 0 write a tensor that every rank holds.

    Raises:
        WeightsError: PEFT's rules fail on this model, or make something of nothing.
    """
    known = dict(state)
    if model.peft_config[adapter].is_prompt_learning:
        known = {k: v for k, v in state.items() if k.startswith(f"prompt_encoder.{adapter}.")}
    traced = _traced(_Rules(model, adapter, known))
    saved_tensors = tuple(
        _entry(traced, name, value, on_first_rank) for name, value in traced.found
    )
    computed = {saved.name: saved for saved in saved_tensors if saved.source_ranges is None}
    needed = frozenset[str]().union(*(saved.needs for saved in computed.values()))
    model_tensors = {name: model_tensor for name, model_tensor in known.items() if name in needed}
    return Selection(saved_tensors, model_tensors, _Compute(traced.rules, computed), traced.config)


@dataclass(frozen=True)
class _Rules:
    """The rules of one adapter's kind, ready to be applied to any tensors.

    Attributes:
        model: the PEFT model.
        adapter: the name of the adapter.
        known: what the rules are given, by the names in memory.
        reads_values: whether the rules read values, so that tensors must have some.
        view: a copy of the model's modules for the rules to walk through and to change.
    """

    model: Any
    adapter: str
    known: dict[str, ModelTensor]
    reads_values: bool = False
    view: Any = field(default=None)

    def __post_init__(self) -> None:
        if self.view is None:
            object.__setattr__(self, "view", bare(self.model))

    @property
    def kind(self) -> str:
        """What the adapter is, to be read by people."""
        return str(self.model.peft_config[self.adapter].peft_type).rpartition(".")[2]

    @property
    def learns_prompts(self) -> bool:
        """Whether the adapter is a prompt, made by a module beside the base model."""
        return bool(self.model.peft_config[self.adapter].is_prompt_learning)

    def apply(self, tensors: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], Any]:
        """Apply the rules to some tensors by their names in memory.

        Returns:
            The selected tensors by PEFT's names, and the configuration that the rules left.
        """
        view, adapter = self.view, self.adapter
        config = view.peft_config[adapter] = copy.deepcopy(self.model.peft_config[adapter])
        tuner = PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type]
        if config.is_prompt_learning:
            start = f"prompt_encoder.{adapter}."
            inside = {name.removeprefix(start): tensor for name, tensor in tensors.items()}
            view.prompt_encoder[adapter] = holding(self.model.prompt_encoder[adapter], inside)
        if isinstance(view.base_model, AdaptionPromptModel):
            view.base_model._active_adapter = adapter  # its tensors are given, in the model or not
        if isinstance(view.base_model, MixedModel):
            view.base_model.__class__ = tuner  # some rules are methods of the tuner
        if not PEFT_KINDS_KNOW_THEIR_TENSORS.is_there:
            return _found_by_names(view, adapter, tensors), config
        found = tuner._get_adapter_state_dict(
            model=view,
            config=config,
            adapter_name=adapter,
            state_dict=tensors,
            unwanted_adapter_names=[name for name in view.peft_config if name != adapter],
        )
        # Of these names alone: an adapter may be called like the end of another one.
        return {
            tuner._remove_adapter_name_from_key(k, adapter): v for k, v in found.items()
        }, config


def _found_by_names(
    view: Any, adapter: str, tensors: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The tensors of an adapter by PEFT's names, in versions that find them by parts of names.

    They leave out what has the name of another adapter anywhere in it, and take a module of the
    base model whose name looks like a tensor of an adapter: so they see nothing of either. Nor do
    they see modules that are trained whole, of which they miss extra state.
    """
    config = view.peft_config[adapter]
    own = tuple(places_of(view, {adapter}))
    if own:
        takes_biases = getattr(config, "bias", "none") != "none"
        tensors = {
            name: tensor
            for name, tensor in tensors.items()
            if f"{name}.".startswith(own) or (takes_biases and name.endswith("bias"))
        }
    for module in view.modules():
        if isinstance(module, AuxiliaryTrainingWrapper):
            module.adapter_state_dict = _nothing
    before = view.peft_config, view.active_adapter
    view.peft_config, view.active_adapter = {adapter: config}, adapter
    try:
        found = get_peft_model_state_dict(
            view, state_dict=tensors, adapter_name=adapter, save_embedding_layers=False
        )
    finally:
        view.peft_config, view.active_adapter = before
    # They remove the adapter's name from biases of the base model too, where it is a module's.
    named = {
        id(tensor): name
        for name, tensor in tensors.items()
        if own and not f"{name}.".startswith(own)
    }
    return {named.get(id(tensor), name): tensor for name, tensor in found.items()}


def _nothing(*_: object) -> dict[str, torch.Tensor]:
    return {}


@dataclass(frozen=True)
class _Traced:
    """What the rules made of tensors without data."""

    rules: _Rules
    found: tuple[tuple[str, torch.Tensor], ...]
    config: Any
    shadows: dict[str, torch.Tensor]
    watch: _Watch


def _traced(rules: _Rules) -> _Traced:
    """Apply the rules to tensors without data, or to zeros where they read values.

    A value then decides on no shape, or is one of the configuration.

    Raises:
        WeightsError: the rules fail.
    """
    try:
        if rules.learns_prompts:
            # A fake tensor can be brought to another device, but takes long to make.
            return _trace(rules, _empty, FakeTensorMode(allow_non_fake_inputs=True))
        return _trace(rules, _on_meta, nullcontext())
    except Exception:
        _LOG.debug("rules of %s read values", rules.kind, exc_info=True)
    try:
        return _trace(replace(rules, reads_values=True), _zeros, nullcontext())
    except Exception as error:
        raise WeightsError(
            f"adapter '{rules.adapter}' ({rules.kind}): expected that PEFT's own rules find its "
            f"tensors, found that they fail: {describe(error)}; see whether save_pretrained of "
            "PEFT can save this model"
        ) from error


def _trace(rules: _Rules, make: Callable[[ModelTensor], torch.Tensor], mode: Any) -> _Traced:
    with mode:
        shadows = {name: make(model_tensor) for name, model_tensor in rules.known.items()}
        watch = _Watch(shadows)
        with watch:
            found, config = rules.apply(dict(shadows))
    return _Traced(rules, tuple(found.items()), config, shadows, watch)


def _entry(
    traced: _Traced,
    name: str,
    value: torch.Tensor,
    on_first_rank: Callable[[ModelTensor], ModelTensor],
) -> SavedTensor:
    rules = traced.rules
    origin = traced.watch.unchanged(value)
    if origin is not None:
        return direct(name, rules.known[origin])
    needs = traced.watch.origins(value)
    if rules.learns_prompts:
        needs = frozenset(rules.known)  # a network's branches may depend on what is in it
    if needs:
        return SavedTensor(name, value.dtype, tuple(value.shape), None, needs)
    if value.is_meta or isinstance(value, FakeTensor):
        raise WeightsError(
            f"adapter '{rules.adapter}' ({rules.kind}), '{name}': expected a tensor of the model, "
            "found one that PEFT makes of nothing in it; this kind of adapter cannot be saved"
        )
    # What a layer holds in a dictionary of its own is there whole on every rank.
    return direct(name, on_first_rank(whole(value)))


@dataclass(frozen=True)
class _Compute:
    """Computes some tensors of an adapter, given all that they are made of."""

    rules: _Rules
    computed: Mapping[str, SavedTensor]

    def __call__(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        rules = self.rules
        make = _zeros if rules.reads_values else _on_meta
        state = {n: tensors[n] if n in tensors else make(s) for n, s in rules.known.items()}
        found, _ = rules.apply(state)
        made = {}
        for name, saved in self.computed.items():
            if not saved.needs <= tensors.keys():
                continue
            made[name] = found[name]
            if tuple(made[name].shape) != saved.shape or made[name].dtype != saved.dtype:
                raise WeightsError(
                    f"adapter '{rules.adapter}' ({rules.kind}), '{name}': expected {saved.dtype} "
                    f"of shape {saved.shape}, as its rules say without data, found "
                    f"{made[name].dtype} of shape {tuple(made[name].shape)}; please report it"
                )
        return made


class _Watch(OriginWatch):  # type: ignore[no-untyped-call]
    """Follows which named tensors others are made of, and which of them stay as they are."""

    def __init__(self, shadows: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self._shadows = {
            self.know(shadow, name): (name, shadow) for name, shadow in shadows.items()
        }

    def unchanged(self, tensor: torch.Tensor) -> str | None:
        """The name of the one that a tensor is, None if it is not one of them."""
        name, shadow = self._shadows.get(self.key(tensor), ("", None))
        if shadow is None or tensor.dtype != shadow.dtype or tensor.shape != shadow.shape:
            return None
        same = prod(shadow.shape) == 0 or tensor.stride() == shadow.stride()
        return name if same and tensor.storage_offset() == shadow.storage_offset() else None

    def on_change(self, key: int) -> None:
        self._shadows.pop(key, None)


def _empty(model_tensor: ModelTensor) -> torch.Tensor:
    return torch.empty(model_tensor.shape, dtype=model_tensor.dtype)


def _on_meta(model_tensor: ModelTensor) -> torch.Tensor:
    return torch.empty(model_tensor.shape, dtype=model_tensor.dtype, device="meta")


def _zeros(model_tensor: ModelTensor) -> torch.Tensor:
    """A tensor of zeros that takes the memory of one."""
    return torch.zeros((), dtype=model_tensor.dtype).expand(model_tensor.shape)
