"""What a save removes is what it replaces, or what the index of an earlier save names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.helpers import models
from tests.reference.crash.scenarios import new_tokenizer, old_tokenizer
from transformers import (
    CLIPImageProcessor,
    ProcessorMixin,
    WhisperFeatureExtractor,
)

from canonical_saver import save_model, save_trained_model

INDEX = "model.safetensors.index.json"


def rename_shards(folder: Path, name: Callable[[int, int], str], index: str = INDEX) -> list[str]:
    """Give the shards of a save other names, in the index as well."""
    plain = json.loads((folder / index).read_text())
    old = sorted(set(plain["weight_map"].values()))
    new = {one: name(number, len(old)) for number, one in enumerate(old, 1)}
    for one, other in new.items():
        (folder / one).rename(folder / other)
    plain["weight_map"] = {key: new[one] for key, one in plain["weight_map"].items()}
    (folder / index).write_text(json.dumps(plain))
    return list(new.values())


@pytest.mark.parametrize(
    "name",
    [
        lambda number, count: f"model-{number:06d}-of-{count:06d}.safetensors",
        lambda number, count: f"model-{number:05d}-of-{count:06d}.safetensors",
        lambda number, count: f"part {number}.safetensors",
        lambda number, count: f"layers.{number}.safetensors",
    ],
)
def test_shards_of_any_name_in_the_index_go(name: Any, tmp_path: Path) -> None:
    save_model(models.llama(seed=1), tmp_path, max_shard_size="30KB")
    shards = rename_shards(tmp_path, name)
    (tmp_path / "other.safetensors").write_bytes(b"of the user")
    save_model(models.llama(), tmp_path)
    left = set(models.contents(tmp_path))
    assert not left & {*shards, INDEX}
    assert {"other.safetensors", "model.safetensors"} <= left


def test_pickled_shards_of_any_name_in_the_index_go(tmp_path: Path) -> None:
    save_model(models.llama(seed=1), tmp_path, format="torch", max_shard_size="30KB")
    index = "pytorch_model.bin.index.json"
    shards = rename_shards(tmp_path, lambda number, _: f"part{number}.bin", index)
    save_model(models.llama(), tmp_path)
    assert not set(models.contents(tmp_path)) & {*shards, index}


def test_an_index_cannot_name_what_is_no_weight_file_beside_it(tmp_path: Path) -> None:
    output = tmp_path / "out"
    (output / "data").mkdir(parents=True)
    (tmp_path / "outside.safetensors").write_text("of the user")
    (output / "data" / "x.safetensors").write_text("of the user")
    (output / "train.py").write_text("of the user")
    (output / "linked.safetensors").symlink_to(tmp_path / "outside.safetensors")
    (output / "folder.safetensors").mkdir()
    names = ["../outside.safetensors", str(tmp_path / "outside.safetensors"), "train.py"]
    names += ["data/x.safetensors", "linked.safetensors", "folder.safetensors", "..", "", "a\0b"]
    weight_map: dict[str, Any] = {str(number): name for number, name in enumerate(names)}
    weight_map |= {"number": 3, "nothing": None}
    (output / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    before = models.contents(tmp_path)
    save_model(models.llama(), output)
    after = models.contents(tmp_path)
    assert set(before) - set(after) == {f"out/{INDEX}"}
    assert (output / "linked.safetensors").is_symlink()


@pytest.mark.parametrize("text", ["", "[]", '{"weight_map": []}', "[" * 100_000, "\udcff"])
def test_an_index_that_is_none_names_nothing(text: str, tmp_path: Path) -> None:
    (tmp_path / INDEX).write_bytes(text.encode("utf-8", "surrogateescape"))
    (tmp_path / "x.safetensors").write_text("of the user")
    save_model(models.llama(), tmp_path)
    assert "x.safetensors" in models.contents(tmp_path)


def test_the_index_of_an_adapter_has_no_say_about_a_whole_model(tmp_path: Path) -> None:
    save_model(models.llama(seed=1), tmp_path)
    before = models.contents(tmp_path)
    index = tmp_path / "adapter_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model.safetensors", "b": "b.safetensors"}}))
    (tmp_path / "b.safetensors").write_text("a shard of the adapter")
    save_model(models.peft(), tmp_path)
    after = models.contents(tmp_path)
    assert {name: after[name] for name in before} == before
    assert not {index.name, "b.safetensors"} & set(after)


class Processor(ProcessorMixin):  # type: ignore[misc]
    """An image processor and a tokenizer."""

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, **options: Any) -> None:
        super().__init__(image_processor, tokenizer, **options)


def make_all(folder: Path) -> None:
    """Files of each kind, as a user may have put them there."""
    names = "tokenizer.json tokenizer_config.json vocab.json merges.txt special_tokens_map.json "
    names += "chat_template.jinja chat_template.json preprocessor_config.json "
    names += "processor_config.json video_preprocessor_config.json modeling_own.py README.md "
    names += "additional_chat_templates/tools.jinja qformer_tokenizer/tokenizer.json"
    for name in names.split():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")


TOKENIZER = {"vocab.json", "merges.txt", "special_tokens_map.json"}
TEMPLATES = {"additional_chat_templates/tools.jinja"}


@pytest.mark.parametrize("model", [models.llama, models.peft])
@pytest.mark.parametrize(
    ("make", "gone"),
    [
        (lambda: WhisperFeatureExtractor(feature_size=8), set()),
        (lambda: CLIPImageProcessor(), set()),
        (lambda: None, set()),
        (new_tokenizer, TOKENIZER | TEMPLATES | {"chat_template.json"}),
        (
            lambda: Processor(CLIPImageProcessor(), new_tokenizer()),
            TOKENIZER | TEMPLATES | {"chat_template.json", "preprocessor_config.json"},
        ),
    ],
    ids=["feature extractor", "image processor", "nothing", "tokenizer", "processor"],
)
def test_files_go_where_the_save_brings_their_kind(
    make: Any, gone: set[str], model: Any, tmp_path: Path
) -> None:
    make_all(tmp_path)
    before = models.contents(tmp_path)
    trainer = SimpleNamespace(processing_class=make())
    save_trained_model({"output_dir": str(tmp_path)}, trainer, model())
    after = models.contents(tmp_path)
    assert set(before) - set(after) == gone


def test_a_tokenizer_without_a_template_leaves_that_of_a_processor(tmp_path: Path) -> None:
    make_all(tmp_path)
    tokenizer = new_tokenizer()
    tokenizer.chat_template = None
    save_model(models.llama(), tmp_path, tokenizer=tokenizer)
    left = set(models.contents(tmp_path))
    assert "chat_template.json" in left
    assert not left & {"chat_template.jinja", *TEMPLATES}


def test_whole_model_keeps_adapters_in_folders_and_drops_the_one_that_would_be_attached(
    tmp_path: Path,
) -> None:
    model = models.peft()
    model.add_adapter("style", model.peft_config["default"])
    save_model(model, tmp_path)
    before = models.contents(tmp_path)
    report = save_model(models.llama(), tmp_path)
    after = models.contents(tmp_path)
    assert {n: b for n, b in after.items() if "/" in n} == {
        n: b for n, b in before.items() if "/" in n
    }
    assert not {"adapter_config.json", "adapter_model.safetensors", "README.md"} & set(after)
    assert report.left == ("style/adapter_model.safetensors",)
    save_model(models.peft(), tmp_path)
    assert not (tmp_path / "style").exists()


def test_adapter_at_the_top_goes_when_only_named_ones_are_saved(tmp_path: Path) -> None:
    save_model(models.peft(), tmp_path)
    model = models.peft()
    model.add_adapter("style", model.peft_config["default"])
    model.delete_adapter("default")
    save_model(model, tmp_path)
    assert not {"adapter_config.json", "adapter_model.safetensors"} & set(models.contents(tmp_path))


def make_checksums(folder: Path) -> None:
    """Checksums of all that is in a folder, as ``sha256sum *`` makes them."""
    lines = [
        f"{hashlib.sha256(data).hexdigest()}  {name}\n"
        for name, data in models.contents(folder).items()
    ]
    (folder / "SHA256SUMS").write_text("".join(lines))


def test_checksums_go_with_the_model_that_they_are_of(tmp_path: Path) -> None:
    save_model(models.llama(), tmp_path, checksums=True, tokenizer=old_tokenizer())
    save_model(models.peft(), tmp_path)
    assert "SHA256SUMS" in models.contents(tmp_path), "the whole model is still there"
    save_model(models.llama(seed=2), tmp_path)
    assert "SHA256SUMS" not in models.contents(tmp_path)
    (tmp_path / "data.csv").write_text("of the user")
    make_checksums(tmp_path)
    save_model(models.llama(seed=3), tmp_path)
    assert "SHA256SUMS" in models.contents(tmp_path)


def test_a_checkpoint_of_dcp_goes_where_a_new_one_comes(tmp_path: Path) -> None:
    save_model(models.llama(), tmp_path, format="dcp")
    (tmp_path / "__9_0.distcp").write_text("of a ninth rank")
    save_model(models.llama(seed=1), tmp_path, format="dcp")
    left = set(models.contents(tmp_path))
    assert "__9_0.distcp" not in left
    report = save_model(models.llama(seed=2), tmp_path)
    assert {".metadata", "__0_0.distcp"} <= set(report.left) & set(models.contents(tmp_path))


def test_adapter_with_a_slash_goes_with_its_folders_when_it_is_ours(tmp_path: Path) -> None:
    model = models.peft()
    model.add_adapter("org/style", model.peft_config["default"])
    model.add_adapter("org/kept", model.peft_config["default"])
    save_model(model, tmp_path)
    (tmp_path / "org" / "kept" / "README.md").write_text("our best")
    (tmp_path / "far" / "away" / "data").mkdir(parents=True)
    save_model(models.peft(), tmp_path)
    assert not (tmp_path / "org" / "style").exists()
    assert (tmp_path / "org" / "kept" / "adapter_model.safetensors").exists()
    assert (tmp_path / "far" / "away" / "data").is_dir()


def test_adapter_with_a_slash_through_a_link_is_refused(tmp_path: Path) -> None:
    model = models.peft()
    model.add_adapter("org/style", model.peft_config["default"])
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "org").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Exception, match="a file or a link"):
        save_model(model, tmp_path / "out")
    assert models.contents(tmp_path) == {}


@pytest.mark.parametrize("name", ["/abs", "a//b", "a/", "../up", "a/../../up", "", ".git/x"])
def test_adapter_name_that_leads_out_is_refused(name: str, tmp_path: Path) -> None:
    model = models.peft()
    model.peft_config[name] = model.peft_config["default"]
    with pytest.raises(ValueError, match="expected the name of an adapter"):
        save_model(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()
