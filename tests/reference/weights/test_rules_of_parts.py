"""Rules of a module or a class for what is saved of it: each difference is followed, or told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from tests.helpers import models, tuners
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from canonical_saver import save_model


class Scaled(nn.Linear):
    """A layer with extra state, which a training changes."""

    def __init__(self) -> None:
        super().__init__(4, 4)
        self.scale = 1.0

    def get_extra_state(self) -> torch.Tensor:
        return torch.tensor([self.scale])

    def set_extra_state(self, state: torch.Tensor) -> None:
        self.scale = float(state)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = Scaled()


def test_save_model_with_extra_state_in_modules_to_save_reloads_it(tmp_path: Path) -> None:
    config = LoraConfig(target_modules=["first"], modules_to_save=["second"])
    model: Any = tuners.filled(get_peft_model(Small(), config))
    model.base_model.model.second.modules_to_save["default"].scale = 3.0
    save_model(model, tmp_path / "out")
    model.save_pretrained(tmp_path / "own")
    found, wanted = (load_file(tmp_path / n / "adapter_model.safetensors") for n in ("out", "own"))
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    again: Any = PeftModel.from_pretrained(Small(), tmp_path / "out")
    assert again.base_model.model.second.modules_to_save["default"].scale == 3.0


class Forgetful(LlamaForCausalLM):  # type: ignore[misc]
    _keys_to_ignore_on_save = ("model.norm.weight",)


def test_save_model_with_a_trained_tensor_that_its_class_ignores_warns(tmp_path: Path) -> None:
    model: Any = Forgetful(LlamaConfig(**models.SIZES))
    (warning,) = save_model(model, tmp_path).warnings
    assert warning.startswith("'model.norm.weight' is not saved, though it was trained")
    model.model.norm.weight.requires_grad_(False)
    assert save_model(model, tmp_path).warnings == ()
