"""Versions of PEFT that find an adapter's tensors by parts of names are told nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.utils import AuxiliaryTrainingWrapper
from torch import nn

from canonical_saver import versions
from canonical_saver.errors import WeightsError
from canonical_saver.versions import PEFT_KINDS_KNOW_THEIR_TENSORS, Difference
from canonical_saver.weights import peft_rules
from canonical_saver.weights.unselected import loadable

START = "base_model.model."


@pytest.mark.parametrize(
    ("installed", "there"),
    [
        ("0.18.1", False),
        ("0.20.9", False),
        ("0.21.0.dev0", True),
        ("0.21.0", True),
        ("0.21.2+local", True),
        ("1.0", True),
    ],
)
def test_difference_is_there_from_its_version_on(
    monkeypatch: pytest.MonkeyPatch, installed: str, there: bool
) -> None:
    monkeypatch.setattr(versions, "version", lambda library: installed)
    assert Difference("peft", "0.21", "").is_there is there


class Base(nn.Module):
    """Has layers that are called like an adapter, and like a tensor of one."""

    def __init__(self) -> None:
        super().__init__()
        self.style = nn.Linear(4, 4)
        self.lora_head = nn.Linear(4, 4)
        self.other_lora_head = nn.Linear(4, 4)


def adapted(bias: Any = "none") -> Any:
    config = LoraConfig(r=2, target_modules=["style", "lora_head"], bias=bias)
    model = get_peft_model(Base(), config)
    model.add_adapter("style", LoraConfig(r=3, target_modules=["style", "lora_head"]))
    return model


@pytest.mark.parametrize("adapter", ["default", "style"])
@pytest.mark.parametrize("bias", ["none", "all"])
def test_names_older_rules_see_nothing_of_base_and_other_adapters(
    monkeypatch: pytest.MonkeyPatch, adapter: str, bias: str
) -> None:
    model = adapted(bias if adapter == "default" else "none")
    seen: dict[str, Any] = {}

    def rules(view: Any, *, state_dict: dict[str, Any], **_: Any) -> dict[str, Any]:
        seen.update(tensors=set(state_dict), adapters=set(view.peft_config))
        return dict(state_dict)

    monkeypatch.setattr(peft_rules, "get_peft_model_state_dict", rules)
    state = dict(model.state_dict())
    peft_rules._found_by_names(model, adapter, state)
    own = {
        f"{START}{layer}.lora_{half}.{adapter}.weight"
        for layer in ("style", "lora_head")
        for half in "AB"
    }
    biases = {name for name in state if name.endswith("bias")}
    takes = bias == "all" and adapter == "default"
    assert seen == {"tensors": own | (biases if takes else set()), "adapters": {adapter}}
    assert set(model.peft_config) == {"default", "style"}


def removing(view: Any, *, state_dict: dict[str, Any], adapter_name: str, **_: Any) -> Any:
    """What older rules do: modules trained whole lose the adapter's name as all others do."""
    found = {name: tensor for name, tensor in state_dict.items() if ".modules_to_save." not in name}
    for path, module in view.named_modules():
        if isinstance(module, AuxiliaryTrainingWrapper):
            start = f"{path}.modules_to_save.{adapter_name}."
            found |= {
                f"{path}.{name.removeprefix(start)}": tensor
                for name, tensor in state_dict.items()
                if name.startswith(start)
            }

    def without(name: str) -> str:
        if name.endswith(f".{adapter_name}"):
            return name.removesuffix(f".{adapter_name}")
        module, _, last = name.rpartition(".")
        return f"{module.removesuffix(f'.{adapter_name}')}.{last}"

    return {without(name): tensor for name, tensor in found.items()}


@pytest.mark.parametrize("adapter", ["default", "weight", "bias", "base_layer"])
def test_names_older_rules_keep_names_of_modules_that_are_called_like_the_adapter(
    monkeypatch: pytest.MonkeyPatch, adapter: str
) -> None:
    config = LoraConfig(
        r=2, target_modules=["style"], modules_to_save=["other_lora_head"], bias="all"
    )
    model = get_peft_model(Base(), config, adapter_name=adapter)
    monkeypatch.setattr(peft_rules, "get_peft_model_state_dict", removing)
    found = peft_rules._found_by_names(model, adapter, dict(model.state_dict()))
    biases = {
        name
        for name in model.state_dict()
        if name.endswith("bias") and ".modules_to_save." not in name
    }
    assert set(found) == biases | {
        f"{START}style.lora_A.weight",
        f"{START}style.lora_B.weight",
        f"{START}other_lora_head.weight",
        f"{START}other_lora_head.bias",
    }


def test_names_older_rules_that_fail_leave_the_model_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = adapted()

    def rules(*_: Any, **__: Any) -> dict[str, torch.Tensor]:
        raise KeyError("lora_E")

    monkeypatch.setattr(peft_rules, "get_peft_model_state_dict", rules)
    with pytest.raises(KeyError):
        peft_rules._found_by_names(model, "style", dict(model.state_dict()))
    assert set(model.peft_config) == {"default", "style"}


def test_loadable_trained_tensor_that_older_loaders_lose_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = adapted()
    free = [f"{START}style.base_layer.weight"]
    lost = [f"{START}lora_head.base_layer.weight", f"{START}other_lora_head.weight"]
    monkeypatch.setattr(versions, "version", lambda library: "0.21.0")
    assert PEFT_KINDS_KNOW_THEIR_TENSORS.is_there
    assert loadable(model, [*free, *lost]) == [*free, *lost]
    monkeypatch.setattr(versions, "version", lambda library: "0.20.0")
    assert loadable(model, free) == free
    for name in lost:
        with pytest.raises(WeightsError, match=name):
            loadable(model, [*free, name])
