"""Adapters that PEFT has put into a model without a ``PeftModel`` around it.

``add_adapter`` and ``load_adapter`` of transformers do this, ``from_pretrained`` with the folder of
an adapter, ``peft.inject_adapter_in_model`` and ``PeftMixedModel``. What is saved then are adapters
too: such a model is taken as if a ``PeftModel`` were around it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from peft import PeftMixedModel, PeftModel
from peft.tuners import MixedModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn

from canonical_saver.errors import WeightsError
from canonical_saver.weights.module_tree import named_modules, unwrap


class InjectedModel(PeftModel):  # type: ignore[misc]
    """Stands around a model with injected adapters as a ``PeftModel`` would; changes nothing in it.

    Args:
        model: the model, without wrappers.
    """

    def __init__(self, model: Any) -> None:
        nn.Module.__init__(self)
        tuner: Any = nn.Module.__new__(MixedModel)
        nn.Module.__init__(tuner)
        tuner.model = model
        tuner.peft_config = model.peft_config
        self._is_prompt_learning = False
        self._peft_config = None
        self.base_model = tuner
        self.active_adapter = next(iter(model.peft_config))
        self.by_transformers = bool(getattr(model, "_hf_peft_config_loaded", False))
        self.in_root = _in_root(model)

    def get_base_model(self) -> nn.Module:
        """The model that the adapters are in."""
        return self.base_model.model  # type: ignore[no-any-return]


def find(model: nn.Module) -> nn.Module:
    """Take a model with injected adapters as one with a ``PeftModel`` around it; others stay."""
    if isinstance(model, PeftMixedModel):
        model = base_of(model)
    configs = getattr(model, "peft_config", None)
    injected = not isinstance(model, PeftModel) and isinstance(configs, dict) and configs
    return InjectedModel(model) if injected and _first_of_peft(model) else model


def outermost(model: nn.Module, roots: Iterable[nn.Module]) -> nn.Module:
    """The PEFT model around a model, if there is one among other modules; else the model."""
    for root in roots:
        outer = unwrap(root)
        if isinstance(outer, PeftModel | PeftMixedModel) and not isinstance(model, PeftModel):
            inside = any(module is model for _, module in named_modules(outer))
            if inside or base_of(outer) is model:
                model = outer
    return model


def base_of(model: Any) -> nn.Module:
    """The model that the adapters of a ``PeftModel`` or ``PeftMixedModel`` are in."""
    mixed = isinstance(model, PeftMixedModel)
    return unwrap(model.base_model.model if mixed else model.get_base_model())


def refuse_hidden(model: nn.Module) -> None:
    """Refuse to save a whole model whose own loader knows nothing of the adapters in it.

    A plain module is loaded by code that makes its modules again, adapters included. Of a folder
    with a ``config.json`` everybody expects that it loads by itself.

    Args:
        model: the unwrapped model, which is not a PEFT model itself.

    Raises:
        WeightsError: there are adapters in it, or what deleted adapters left; names the place.
    """
    if not hasattr(getattr(model, "config", None), "save_pretrained"):
        return
    found = _first_of_peft(model)
    if found is None:
        return
    name, kind = found
    inner = next(
        (n for n, m in named_modules(model) if isinstance(m, PeftModel | PeftMixedModel)), None
    )
    if inner is not None:
        outside = sorted(
            n
            for n, p in model.named_parameters()
            if p.requires_grad and f".{inner}." not in f".{n}"
        )
        also = f", and {outside[0]} is trained outside of it" if outside else ""
        raise WeightsError(
            f"expected a PEFT model, or a model without adapters, found a PEFT model at '{inner}' "
            f"inside a {type(model).__name__}{also}; no loader puts such a folder together again. "
            f"Save the model at '{inner}' by itself, and what is trained outside of it by "
            "safetensors.torch.save_file"
        )
    raise WeightsError(
        "expected a model without adapters, or one that knows them by its peft_config, found "
        f"{kind} at '{name}' in a {type(model).__name__}; no loader knows such a model. "
        "Put the adapter on the whole model by get_peft_model or add_adapter, or take deleted "
        "adapters off by unload before saving"
    )


def _first_of_peft(model: nn.Module) -> tuple[str, str] | None:
    """Name and class of the first module that PEFT put in the place of another."""
    kinds = (BaseTunerLayer, AuxiliaryTrainingWrapper)
    return next(
        (
            (name, f"{type(m).__module__}.{type(m).__name__}")
            for name, m in named_modules(model)
            if isinstance(m, kinds)
        ),
        None,
    )


def _in_root(model: Any) -> str:
    """The adapter that goes into the output folder itself: the active one, if there is only one."""
    for _, module in named_modules(model):
        if isinstance(module, BaseTunerLayer):
            active = module.active_adapter
            names = [active] if isinstance(active, str) else list(active)
            return names[0] if len(names) == 1 else "default"
    return "default"
