"""Model cards: valid for the hub, and without a path of this machine."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from tests.helpers import models

from canonical_saver import save_model
from canonical_saver.publishing.model_card import Card, hub_id
from canonical_saver.publishing.stale_files import has_mark

BASES = [
    "org/model",
    "gpt2",
    "/home/somebody/base",
    "~/base",
    "../base",
    "C:\\models\\base",
    'a"b\\c',
    "a\nb: c",
    "org/model/more",
    "s3://bucket/base",
    "org/name: {",
    "",
    None,
    Path("/home/somebody/base"),
    "org/model\0",
    "no",
    "1.0",
]


def metadata(text: str) -> dict[str, object]:
    found: dict[str, object] = ModelCard(text).data.to_dict()
    return found


@pytest.mark.parametrize("base", BASES, ids=repr)
@pytest.mark.parametrize("name", ["out", 'a"b', "a\\b", "a\nb", "```", "é\u2028", "\udcff"])
def test_card_of_any_base_is_valid(base: object, name: str) -> None:
    text = Card(base, "LlamaForCausalLM", "LORA", name, name, "<!-- mark -->").text()
    found = metadata(text)
    assert found.get("base_model") in (None, base)
    assert (found["library_name"], found["tags"]) == ("peft", ["lora"])
    assert "somebody" not in text
    assert "<!-- mark -->" in text.splitlines()
    source = text.split("\n```python\n")[1].rpartition("\n```\n")[0]
    source = source.encode("utf-8", "backslashreplace").decode()
    *_, call = ast.parse(source).body
    literals = [node.value for node in ast.walk(call) if isinstance(node, ast.Constant)]
    assert literals == [name, name]


def test_hub_id_is_no_path_that_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hub_id("org/model") == "org/model"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "model").mkdir(parents=True)
    assert hub_id("org/model") is None


def test_save_of_an_adapter_from_a_path_tells_no_path(tmp_path: Path) -> None:
    base = tmp_path / "home" / 'a"b\\c'
    models.llama().save_pretrained(base)
    model = models.peft()
    for config in model.peft_config.values():
        config.base_model_name_or_path = str(base)
    output = tmp_path / "the model"
    save_model(model, output)
    text = (output / "README.md").read_text()
    assert str(tmp_path) not in text
    assert "base_model" not in metadata(text)
    assert has_mark(output)


def test_save_of_an_adapter_from_the_hub_names_its_base(tmp_path: Path) -> None:
    model = models.peft()
    model.peft_config["default"].base_model_name_or_path = "org/model"
    save_model(model, tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    assert metadata(text)["base_model"] == "org/model"
    assert 'from_pretrained("org/model")' in text
