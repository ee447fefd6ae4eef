"""Notes on what keeps other readers from a folder; what plain saves show is no defect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.readers.test_read import make_folder

from saver_conformance.folder_check.audit import audit

ROPE = {"rope_type": "default", "rope_theta": 500_000.0}


def make(folder: Path, tokenizer: dict[str, Any] | None = None, **config: Any) -> Path:
    make_folder(folder)
    for name, values in (("config.json", config), ("tokenizer_config.json", tokenizer or {})):
        plain = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(plain | values))
    return folder


def notes(folder: Path) -> str:
    return "\n".join(remark.text for remark in audit(folder).portability)


@pytest.mark.parametrize(
    ("config", "tokenizer", "told"),
    [
        ({"rope_parameters": ROPE}, {}, "no rope_theta (500000.0)"),
        ({"dtype": "float32"}, {}, "no torch_dtype ('float32')"),
        ({"model_type": "qwen3_moe", "num_local_experts": 4}, {}, "no num_experts (4)"),
        ({}, {"tokenizer_class": "TokenizersBackend"}, "TokenizersBackend"),
        ({}, {}, "stands in chat_template.jinja only"),
        ({}, {"chat_template": "another"}, "the chat template differs"),
        ({"num_nextn_predict_layers": 1, "num_hidden_layers": 1}, {}, "claims 1 layers"),
    ],
)
def test_what_keeps_other_readers_from_a_folder_is_a_note(
    tmp_path: Path, config: dict[str, Any], tokenizer: dict[str, Any], told: str
) -> None:
    folder = make(tmp_path / "a", tokenizer, **config)
    assert told in notes(folder)
    assert not any(clause.startswith("PORTABLE") for clause in broken(folder))


def broken(folder: Path) -> set[str]:
    return {clause for clause, result in audit(folder).clauses.items() if result.count}


def test_two_values_of_one_setting_are_a_defect(tmp_path: Path) -> None:
    folder = make(tmp_path / "a", rope_parameters=ROPE, rope_theta=10_000.0)
    assert "PORTABLE-002" in broken(folder)
    assert "PORTABLE-002" not in broken(make(tmp_path / "b", rope_parameters=ROPE, rope_theta=5e5))


def test_an_adapter_that_servers_refuse_is_a_note(tmp_path: Path) -> None:
    for key in ("use_dora", "modules_to_save"):
        folder = tmp_path / key
        folder.mkdir()
        settings = {"peft_type": "LORA", key: ["lm_head"] if key == "modules_to_save" else True}
        (folder / "adapter_config.json").write_text(json.dumps(settings))
        assert "merge it into its base" in notes(folder)
