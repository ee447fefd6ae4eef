"""Versions of PEFT that find an adapter's tensors by parts of names are told nothing else."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.utils import AuxiliaryTrainingWrapper
from safetensors.torch import load_file
from torch import nn

from canonical_saver import save_model, versions
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
    """What older rules do: biases, and modules trained whole, lose the adapter's name as well."""
    found = {name: tensor for name, tensor in state_dict.items() if ".modules_to_save." not in name}
    for path, module in view.named_modules():
        if isinstance(module, AuxiliaryTrainingWrapper):
            inside = {
                name.removeprefix(f"{path}."): tensor
                for name, tensor in state_dict.items()
                if name.startswith(f"{path}.")
            }
            own = module.adapter_state_dict(adapter_name, inside)
            found |= {f"{path}.{name}": tensor for name, tensor in own.items()}

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
    # The module that is trained whole is found apart, by its place.
    assert set(found) == biases | {f"{START}style.lora_{half}.weight" for half in "AB"}


@pytest.mark.parametrize("adapter", ["default", "weight", "bias"])
def test_save_model_module_trained_whole_keeps_its_names_whatever_the_adapter_is_called(
    adapter: str, tmp_path: Path
) -> None:
    base = nn.Sequential(OrderedDict(style=nn.Linear(4, 4), head=nn.Linear(4, 4)))
    config = LoraConfig(r=2, target_modules=["style"], modules_to_save=["head"])
    model = get_peft_model(base, config, adapter_name=adapter)
    save_model(model, tmp_path)
    folder = tmp_path if adapter == "default" else tmp_path / adapter
    assert set(load_file(folder / "adapter_model.safetensors")) == {
        f"{START}style.lora_A.weight",
        f"{START}style.lora_B.weight",
        f"{START}head.weight",
        f"{START}head.bias",
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
