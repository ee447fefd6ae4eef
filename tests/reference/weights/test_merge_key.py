"""Which key of a configuration asks for a merged model, and of which base."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model
from tests.helpers import models

from canonical_saver import WeightsError, save_trained_model
from canonical_saver.from_trainer import from_training


def adapted() -> Any:
    return get_peft_model(
        models.llama(), LoraConfig(target_modules=["q_proj"], init_lora_weights=False)
    )


@pytest.mark.parametrize(
    ("cfg", "key"),
    [
        ({}, ""),
        ({"relora": False, "merge_lora": None}, ""),
        ({"relora": True}, "relora"),
        ({"relora": True, "load_in_4bit": True}, ""),
        ({"relora": True, "load_in_8bit": True}, ""),
        ({"merge_lora": True}, "merge_lora"),
        ({"merge_lora": True, "relora": True, "load_in_4bit": True}, "merge_lora"),
    ],
)
def test_from_training_merge_key_is_the_one_that_asks(cfg: dict[str, Any], key: str) -> None:
    assert from_training({"output_dir": "out", **cfg}, None, models.llama()).merge == key


@pytest.mark.parametrize("key", ["relora", "merge_lora"])
def test_save_merge_key_saves_the_merge_of_peft(key: str, tmp_path: Path) -> None:
    model = adapted()
    cfg = {"output_dir": str(tmp_path / "m"), key: True, "save_portable": False}
    save_trained_model(cfg, None, model)
    copy.deepcopy(model).merge_and_unload().save_pretrained(tmp_path / "golden")
    assert models.contents(tmp_path / "m") == models.contents(tmp_path / "golden")


@pytest.mark.parametrize("key", ["relora", "merge_lora"])
def test_save_merge_key_without_an_adapter_saves_the_model(key: str, tmp_path: Path) -> None:
    save_trained_model({"output_dir": str(tmp_path / "m"), key: True}, None, models.llama())
    assert "model.safetensors" in models.contents(tmp_path / "m")


def test_save_merge_lora_of_a_quantized_base_is_refused(tmp_path: Path) -> None:
    model = adapted()
    model.get_base_model().hf_quantizer = object()
    cfg = {"output_dir": str(tmp_path / "m"), "merge_lora": True}
    with pytest.raises(WeightsError, match="merge_lora: expected a base that can take"):
        save_trained_model(cfg, None, model)
    assert not (tmp_path / "m").exists()
