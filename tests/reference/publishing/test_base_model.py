"""An adapter's save never costs the base that the adapter needs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from peft import LoraConfig, PeftModel, get_peft_model
from tests.helpers import models
from tests.reference.crash.scenarios import new_tokenizer, old_tokenizer
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from canonical_saver import RequestError, save_model, save_trained_model

LORA: dict[str, Any] = {"target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    models.llama().save_pretrained(folder, max_shard_size="30KB")
    old_tokenizer().save_pretrained(folder)
    return folder


def adapted(base: Path, name: str = "default") -> Any:
    return get_peft_model(LlamaForCausalLM.from_pretrained(base), LoraConfig(**LORA), name)


def by_path(base: Path, tmp: Path) -> Path:
    return base


def by_link(base: Path, tmp: Path) -> Path:
    (tmp / "link").symlink_to(base)
    return tmp / "link"


def by_linked_files(base: Path, tmp: Path) -> Path:
    (tmp / "links").mkdir()
    for path in base.iterdir():
        (tmp / "links" / path.name).symlink_to(path)
    return tmp / "links"


def by_hard_link(base: Path, tmp: Path) -> Path:
    (tmp / "hard").mkdir()
    shard = sorted(base.glob("*.safetensors"))[1]
    os.link(shard, tmp / "hard" / "another-name.safetensors")
    return tmp / "hard"


def where_the_files_of_the_base_are(base: Path, tmp: Path) -> Path:
    """As in the hub's cache: the base's folder has links to files that are called by digests."""
    (tmp / "blobs").mkdir()
    for number, path in enumerate(sorted(base.iterdir())):
        path.rename(tmp / "blobs" / str(number))
        path.symlink_to(tmp / "blobs" / str(number))
    return tmp / "blobs"


@pytest.mark.parametrize(
    "place",
    [by_path, by_link, by_linked_files, by_hard_link, where_the_files_of_the_base_are],
    ids=lambda place: place.__name__,
)
def test_save_model_into_the_base_is_refused(
    place: Callable[[Path, Path], Path], base: Path, tmp_path: Path
) -> None:
    output = place(base, tmp_path)
    model = adapted(base)
    before = models.contents(base), models.contents(output)
    with pytest.raises(RequestError, match="found its base model"):
        save_model(model, output, tokenizer=new_tokenizer())
    assert (models.contents(base), models.contents(output)) == before


@pytest.mark.parametrize("known_by", ["configuration", "adapter", "base model", "base config"])
def test_save_knows_the_base_by_any_of_its_names(known_by: str, base: Path) -> None:
    model = adapted(base)
    model.peft_config["default"].base_model_name_or_path = None
    model.get_base_model().name_or_path = model.config._name_or_path = ""
    cfg: dict[str, Any] = {"output_dir": str(base)}
    if known_by == "configuration":
        cfg["base_model"] = str(base)
    elif known_by == "adapter":
        model.peft_config["default"].base_model_name_or_path = str(base)
    elif known_by == "base model":
        model.get_base_model().name_or_path = str(base)
    else:
        model.config._name_or_path = str(base)
    before = models.contents(base)
    with pytest.raises(RequestError, match="found its base model"):
        save_trained_model(cfg, SimpleNamespace(model=model), model)
    assert models.contents(base) == before


def test_save_model_into_a_snapshot_of_the_hub_is_refused(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "models--org--tiny"
    (repository / "snapshots").mkdir(parents=True)
    model = adapted(base)
    model.peft_config["default"].base_model_name_or_path = "org/tiny"
    model.get_base_model().name_or_path = "org/tiny"
    blobs = where_the_files_of_the_base_are(base, repository)
    base.rename(repository / "snapshots" / "abc")
    for output in (repository / "snapshots" / "abc", blobs):
        before = models.contents(tmp_path)
        with pytest.raises(RequestError, match="found its base model"):
            save_model(model, output)
        assert models.contents(tmp_path) == before


def test_an_adapter_called_as_the_folder_of_its_base_is_refused(tmp_path: Path) -> None:
    models.llama().save_pretrained(tmp_path / "out" / "style")
    model = adapted(tmp_path / "out" / "style", "style")
    before = models.contents(tmp_path)
    with pytest.raises(RequestError, match="found its base model"):
        save_model(model, tmp_path / "out")
    assert models.contents(tmp_path) == before


def test_a_named_adapter_may_lie_below_its_base(base: Path) -> None:
    before = models.contents(base)
    save_model(adapted(base, "style"), base)
    after = models.contents(base)
    assert {name: after[name] for name in before} == before
    plain = AutoModelForCausalLM.from_pretrained(base)
    assert not getattr(plain, "peft_config", None)
    assert PeftModel.from_pretrained(plain, str(base / "style")).peft_config


def test_files_of_the_base_are_not_replaced_by_those_of_a_named_adapter(base: Path) -> None:
    before = models.contents(base)
    with pytest.raises(RequestError, match=r"replaced \(.*tokenizer\.json"):
        save_model(adapted(base, "style"), base, tokenizer=new_tokenizer())
    (base / "SHA256SUMS").write_text(f"{'0' * 64}  data.csv\n")
    with pytest.raises(RequestError, match=r"replaced \(SHA256SUMS"):
        save_model(adapted(base, "style"), base, checksums=True)
    (base / "SHA256SUMS").unlink()
    assert models.contents(base) == before
    save_model(adapted(base, "style"), base, tokenizer=old_tokenizer())  # the same bytes


def test_the_adapter_that_lies_beside_its_base_already_is_replaced(base: Path) -> None:
    whole = models.contents(base)
    model = adapted(base)
    model.save_pretrained(base)
    report = save_model(model, base, format="torch")
    after = models.contents(base)
    assert {name: after[name] for name in whole} == whole
    assert "adapter_model.safetensors" not in after
    assert "adapter_model.bin" in after
    assert {"config.json", "model.safetensors.index.json"} <= set(report.left)
    save_model(model, base)
    assert AutoModelForCausalLM.from_pretrained(base).peft_config


def test_a_whole_model_replaces_the_one_that_it_was_loaded_from(base: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(base)
    model.lm_head.weight.data.add_(1)
    save_model(model, base)
    loaded = LlamaForCausalLM.from_pretrained(base)
    assert loaded.lm_head.weight.equal(model.lm_head.weight)
    assert not list(base.glob("model-*"))


def test_an_adapter_merged_into_its_base_replaces_it(base: Path) -> None:
    model = adapted(base)
    cfg = {"output_dir": str(base), "relora": True}
    save_trained_model(cfg, SimpleNamespace(model=model), model)
    assert LlamaForCausalLM.from_pretrained(base).lm_head.weight.shape[0] == 67


def test_a_copy_of_the_base_stays_and_is_told(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / "copy"
    shutil.copytree(base, output)
    before = models.contents(output)
    report = save_model(adapted(base), output)
    after = models.contents(output)
    assert {name: after[name] for name in before} == before
    told = ("config.json", "model-00001-of-00003.safetensors", "model.safetensors.index.json")
    assert set(told) <= set(report.left)
    (record,) = [one for one in caplog.records if one.name == "canonical_saver"]
    assert all(name in record.getMessage() for name in (*told, str(output), "AutoModel"))
    assert not save_model(adapted(base), tmp_path / "new").left


@pytest.mark.parametrize("name", ["/gone/base", "a/b/c/d", "x" * 5000, "~nobody/x", "no\0name"])
def test_a_name_that_leads_nowhere_is_no_reason_to_refuse(
    name: str, base: Path, tmp_path: Path
) -> None:
    model = adapted(base)
    model.peft_config["default"].base_model_name_or_path = name
    model.get_base_model().name_or_path = model.config._name_or_path = ""
    save_model(model, tmp_path / "out")
    assert (tmp_path / "out" / "adapter_model.safetensors").exists()
