"""Settings that are no objects of their library, or hold themselves, cost no weights."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.helpers import models
from transformers import GenerationConfig, LlamaForCausalLM

from canonical_saver import save_model


def test_a_mapping_as_generation_config_is_written(tmp_path: Path) -> None:
    model: Any = models.llama()
    model.generation_config = {"max_new_tokens": 7}
    report = save_model(model, tmp_path)
    assert "generation_config.json was written as it is" in "".join(report.warnings)
    assert GenerationConfig.from_pretrained(tmp_path).max_new_tokens == 7


@pytest.mark.parametrize("held", [SimpleNamespace(max_new_tokens=7), "greedy", 3], ids=repr)
def test_anything_as_generation_config_saves_the_weights_and_warns(
    held: Any, tmp_path: Path
) -> None:
    model: Any = models.llama()
    model.generation_config = held
    report = save_model(model, tmp_path)
    assert "generation_config.json" in "".join(report.warnings)
    LlamaForCausalLM.from_pretrained(tmp_path)


def test_a_config_that_holds_itself_is_written_without_that(tmp_path: Path) -> None:
    model: Any = models.llama()
    held: dict[str, Any] = {"of": "a fine-tune"}
    held["again"] = [held]
    model.config.notes = held
    report = save_model(model, tmp_path)
    assert "config.json was written without notes.again[0]" in "".join(report.warnings)
    notes = json.loads((tmp_path / "config.json").read_text())["notes"]
    assert notes == {"of": "a fine-tune", "again": []}
    LlamaForCausalLM.from_pretrained(tmp_path)


class Greedy:
    """A processor with a model in it, which it saves as well."""

    def save_pretrained(self, folder: str) -> None:
        for name in ("config.json", "model.safetensors", "processor_config.json"):
            (Path(folder) / name).write_text('{"of": "the processor"}')


@pytest.mark.parametrize("options", [{}, {"format": "torch"}, {"max_shard_size": "20KB"}], ids=str)
def test_a_processor_with_files_of_a_model_costs_no_model(
    options: dict[str, Any], tmp_path: Path
) -> None:
    report = save_model(models.llama(), tmp_path, tokenizer=Greedy(), **options)
    told = "config.json, model.safetensors of Greedy were left out"
    assert any(warning.startswith(told) for warning in report.warnings)
    assert "processor" in (tmp_path / "processor_config.json").read_text()
    if "format" not in options:
        LlamaForCausalLM.from_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "llama"
