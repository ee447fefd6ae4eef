"""Buffers of an adapter's base that training changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from tests.helpers import models, tuners
from transformers import LlamaConfig, LlamaForCausalLM

from canonical_saver import save_model


class Routed(LlamaForCausalLM):  # type: ignore[misc]
    """A model with buffers: of a router, which training moves, and a constant."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model.register_buffer("bias", torch.zeros(3))
        self.register_buffer("constant", torch.arange(3.0) / 3)
        self.register_buffer("none", torch.tensor(float("nan")).to(torch.float8_e4m3fn))
        self.register_buffer("scratch", torch.zeros(3), persistent=False)


def adapted(folder: Path, dtype: torch.dtype = torch.float32, **saving: Any) -> Any:
    torch.manual_seed(0)
    Routed(LlamaConfig(**models.SIZES)).save_pretrained(folder, **saving)
    base = Routed.from_pretrained(folder, dtype=dtype)
    return tuners.filled(get_peft_model(base, LoraConfig(target_modules=["q_proj"], r=3)))


@pytest.mark.parametrize("saving", [{}, {"max_shard_size": "20KB"}], ids=["single", "shards"])
def test_save_model_with_a_changed_buffer_reloads_equal(
    saving: dict[str, Any], tmp_path: Path
) -> None:
    model = adapted(tmp_path / "base", **saving)
    base = model.get_base_model()
    base.model.bias.add_(5)
    base.scratch.add_(5)
    report = save_model(model, tmp_path / "out")
    assert "model.bias" in "".join(report.warnings)
    saved = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert [name for name in saved if "lora" not in name] == ["base_model.model.model.bias"]
    again = PeftModel.from_pretrained(Routed.from_pretrained(tmp_path / "base"), tmp_path / "out")
    assert torch.equal(again.get_base_model().model.bias, base.model.bias)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_save_model_without_a_changed_buffer_saves_the_adapter_alone(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    model = adapted(tmp_path / "base", dtype)
    if dtype == torch.bfloat16:
        model.get_base_model().constant.data = model.get_base_model().constant.float()
    report = save_model(model, tmp_path / "out")
    assert report.warnings == ()
    saved = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert all("lora" in name for name in saved)


def test_save_model_without_the_base_at_hand_saves_the_adapter(tmp_path: Path) -> None:
    model = adapted(tmp_path / "base")
    model.get_base_model().model.bias.add_(5)
    (tmp_path / "base").rename(tmp_path / "elsewhere")
    save_model(model, tmp_path / "out")
    assert all("lora" in n for n in load_file(tmp_path / "out" / "adapter_model.safetensors"))
