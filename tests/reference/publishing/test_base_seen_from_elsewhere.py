"""The base of an adapter by a relative name, after the working directory has changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model
from tests.helpers import models
from transformers import LlamaForCausalLM

from canonical_saver import RequestError, save_model


def adapted(name: str) -> Any:
    base = LlamaForCausalLM.from_pretrained(name)
    return get_peft_model(base, LoraConfig(target_modules=["q_proj"]))


@pytest.mark.parametrize("name", ["models/base", "./models/base", "../run/models/base"])
def test_save_model_into_a_base_that_is_seen_no_longer_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, elsewhere = tmp_path / "run" / "models" / "base", tmp_path / "other" / "deep"
    (tmp_path / "run").mkdir()
    elsewhere.mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "run")
    models.llama().save_pretrained(base)
    model = adapted(name)
    monkeypatch.chdir(elsewhere)
    before = sorted(base.iterdir())
    with pytest.raises(RequestError, match="another working directory"):
        save_model(model, base)
    assert sorted(base.iterdir()) == before


def test_save_model_into_a_new_folder_of_the_same_name_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    models.llama().save_pretrained("base")
    model = adapted("base")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    for _ in range(2):
        save_model(model, "base")
    assert (tmp_path / "other" / "base" / "adapter_model.safetensors").exists()
