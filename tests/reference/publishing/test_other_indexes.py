"""A save removes no weights that the index of another model in the folder names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.helpers import models

from canonical_saver import save_model

INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize(
    "variant",
    [
        "model.fp16.safetensors.index.json",
        "model.safetensors.index.fp16.json",
        "another.index.json",
    ],
)
def test_shards_that_another_index_names_stay(variant: str, tmp_path: Path) -> None:
    save_model(models.llama(seed=1), tmp_path, max_shard_size="30KB")
    index = json.loads((tmp_path / INDEX).read_text())
    shared, own = sorted(set(index["weight_map"].values()))[:2]
    index["weight_map"] = {k: v for k, v in index["weight_map"].items() if v == shared}
    (tmp_path / variant).write_text(json.dumps(index))
    before = (tmp_path / shared).read_bytes()
    report = save_model(models.llama(), tmp_path)
    assert (tmp_path / shared).read_bytes() == before
    assert not (tmp_path / own).exists()
    assert not (tmp_path / INDEX).exists()
    assert any(shared in text for text in report.warnings)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}'])
def test_shards_beside_what_is_no_index_go(text: str, tmp_path: Path) -> None:
    save_model(models.llama(seed=1), tmp_path, max_shard_size="30KB")
    (tmp_path / "other.index.json").write_text(text)
    save_model(models.llama(), tmp_path)
    assert [path.name for path in tmp_path.glob("*.safetensors")] == ["model.safetensors"]


def test_shards_that_are_replaced_and_that_another_index_names_are_a_warning(
    tmp_path: Path,
) -> None:
    save_model(models.llama(seed=1), tmp_path, max_shard_size="30KB")
    (tmp_path / "kept.index.json").write_bytes((tmp_path / INDEX).read_bytes())
    report = save_model(models.llama(), tmp_path, max_shard_size="30KB")
    told = [text for text in report.warnings if "kept.index.json" in text]
    assert len(told) == len([name for name in report.files if name.endswith(".safetensors")])


def test_shards_that_are_replaced_with_their_own_index_are_no_warning(tmp_path: Path) -> None:
    for seed in (1, 2):
        report = save_model(models.llama(seed=seed), tmp_path, max_shard_size="30KB")
    assert report.warnings == ()
