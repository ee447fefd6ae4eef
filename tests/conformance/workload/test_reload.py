"""Reloaded models against controls that hold the same weights."""

from __future__ import annotations

from saver_conformance.cases.case import Adapter, Case, Mode
from saver_conformance.workload import models, reload, training


def test_frozen_model_has_the_logits_of_a_trainable_one(tmp_path):
    """Mamba gives its adapters a transposed input, which matmul folds for a gradient only."""
    adapter = Adapter(targets=("x_proj",), kind="olora")
    case = Case(Mode("lora", "single"), architecture="mamba", adapter=adapter)
    models.save_base(case, tmp_path)
    loaded = training.add_adapters(models.load_base(case, tmp_path), case).requires_grad_(False)
    control = training.add_adapters(models.load_base(case, tmp_path), case)
    assert any(parameter.requires_grad for parameter in control.parameters())
    assert reload._same_logits(case, loaded, lambda: control)
