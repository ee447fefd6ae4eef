"""Modules around a model of transformers: averages of it, and heads with its configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tests.helpers import models
from torch import nn
from torch.optim.swa_utils import AveragedModel
from transformers import LlamaForCausalLM

from canonical_saver import save_model


def test_save_model_of_averaged_weights_saves_the_model(tmp_path: Path) -> None:
    model = models.llama()
    averaged = AveragedModel(model)
    averaged.update_parameters(models.llama(seed=1))
    averaged.update_parameters(models.llama(seed=2))
    save_model(torch.compile(averaged), tmp_path)  # type: ignore[arg-type]
    found = LlamaForCausalLM.from_pretrained(tmp_path).state_dict()
    wanted = averaged.module.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in found.items())
    assert not torch.equal(wanted["lm_head.weight"], model.state_dict()["lm_head.weight"])


class WithHead(nn.Module):
    def __init__(self, model: Any, *, lends: bool) -> None:
        super().__init__()
        self.inner = model
        self.head = nn.Linear(32, 1)
        if lends:
            self.config = model.config


def test_save_model_of_a_module_with_a_lent_config_warns_of_its_names(tmp_path: Path) -> None:
    report = save_model(WithHead(models.llama(), lends=True), tmp_path)
    (warning,) = report.warnings
    assert "names of WithHead, which begin with 'inner.'" in warning
    assert "LlamaForCausalLM" in warning


class WithOwnNames(WithHead):
    def save_pretrained(self, folder: str) -> None:
        head = {f"head.{name}": value for name, value in self.head.state_dict().items()}
        self.inner.save_pretrained(folder, state_dict=self.inner.state_dict() | head)


def test_save_model_by_names_of_its_own_does_not_warn(tmp_path: Path) -> None:
    assert save_model(WithOwnNames(models.llama(), lends=True), tmp_path).warnings == ()
    assert "head.weight" in load_file(tmp_path / "model.safetensors")


def test_save_model_of_a_plain_module_does_not_warn(tmp_path: Path) -> None:
    assert save_model(WithHead(models.llama(), lends=False), tmp_path).warnings == ()
