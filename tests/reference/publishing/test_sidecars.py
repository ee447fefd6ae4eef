"""Sidecars that cannot be written: the weights are saved, and a warning says what to do."""

from __future__ import annotations

import errno
import json
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tests.helpers import models, worlds
from tests.reference.crash.scenarios import tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from canonical_saver import SaveError, save_model, save_trained_model
from canonical_saver.publishing import staging


class Odd:
    """What no JSON can hold."""


def fails(*_: Any, **__: Any) -> None:
    raise RuntimeError("it is broken")


def contradictory() -> Any:
    model = models.llama()
    model.generation_config.temperature = 0.3
    model.generation_config.do_sample = False
    return model


def not_loadable() -> Any:
    model = models.llama()
    model.generation_config.max_new_tokens = -5
    return model


def generation_with_an_object() -> Any:
    model = models.llama()
    model.generation_config.hook = Odd()
    model.generation_config.eos_token_id = [2, 3]
    return model


def config_with_an_object() -> Any:
    model = models.llama()
    model.config.mine = {"kept": 1, "object": Odd(), "names": {"b", "a"}}
    return model


def config_with_a_lock() -> Any:
    model = models.llama()
    model.config.lock = threading.Lock()
    return model


def config_with_settings_of_generation() -> Any:
    model = models.llama()
    model.config.temperature = 0.3
    return model


def config_whose_own_save_fails() -> Any:
    model = models.llama()
    model.config.__class__ = type("Broken", (type(model.config),), {"save_pretrained": fails})
    return model


FLAWS: list[tuple[Callable[[], Any], str, tuple[str, ...]]] = [
    (contradictory, "generation_config.json", ("as it is", "temperature")),
    (not_loadable, "generation_config.json", ("left out", "max_new_tokens")),
    (generation_with_an_object, "generation_config.json", ("without hook",)),
    (config_with_an_object, "config.json", ("without mine.object",)),
    (config_with_a_lock, "config.json", ("without lock",)),
    (config_with_settings_of_generation, "config.json", ("as it is", "temperature")),
    (config_whose_own_save_fails, "config.json", ("as it is", "it is broken")),
]


@pytest.mark.parametrize(
    ("make", "name", "words"), FLAWS, ids=[make.__name__ for make, *_ in FLAWS]
)
def test_save_with_a_flawed_setting_saves_weights_and_warns(
    make: Callable[[], Any],
    name: str,
    words: tuple[str, ...],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = make()
    with caplog.at_level(logging.WARNING, "canonical_saver"):
        report = save_model(model, tmp_path)
    (warning,) = report.warnings
    assert warning.startswith(name)
    assert all(word in warning for word in words), warning
    assert "save_pretrained(FOLDER)" in warning
    ours = [record for record in caplog.records if record.name == "canonical_saver"]
    assert [record.getMessage() for record in ours] == [warning]
    assert {path.name for path in tmp_path.iterdir()} == set(report.files)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)


def test_save_without_a_flaw_warns_of_nothing(tmp_path: Path) -> None:
    report = save_model(models.llama(), tmp_path, tokenizer=tokenizer("a b", "template"))
    assert report.warnings == ()


def test_a_flawed_generation_config_keeps_the_values_that_a_loader_reads(tmp_path: Path) -> None:
    save_model(contradictory(), tmp_path / "a")
    assert json.loads((tmp_path / "a/generation_config.json").read_text())["temperature"] == 0.3
    save_model(generation_with_an_object(), tmp_path / "b")
    assert json.loads((tmp_path / "b/generation_config.json").read_text())["eos_token_id"] == [2, 3]


def test_a_flawed_config_keeps_what_can_be_stored(tmp_path: Path) -> None:
    save_model(config_with_an_object(), tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).mine == {"kept": 1, "names": ["a", "b"]}
    sound = models.llama()
    save_model(sound, tmp_path / "sound")
    values, wanted = (
        json.loads((folder / "config.json").read_text())
        for folder in (tmp_path, tmp_path / "sound")
    )
    del values["mine"]
    assert values == wanted


def test_a_config_that_does_not_load_is_written_and_said_so(tmp_path: Path) -> None:
    model = models.llama()
    model.config.num_attention_heads = 5
    report = save_model(model, tmp_path)
    (warning,) = report.warnings
    assert "does not load" in warning
    assert "attention heads (5)" in warning
    assert json.loads((tmp_path / "config.json").read_text())["num_attention_heads"] == 5
    assert (tmp_path / "model.safetensors").exists()


def test_what_is_left_out_is_not_replaced_by_that_of_an_earlier_save(tmp_path: Path) -> None:
    save_model(models.llama(), tmp_path, tokenizer=tokenizer("a b", "old"))
    assert (tmp_path / "generation_config.json").exists()
    broken = tokenizer("b a", "new")
    broken.init_kwargs["object"] = Odd()
    report = save_model(not_loadable(), tmp_path, tokenizer=broken)
    assert len(report.warnings) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_what_is_left_out_is_not_removed_behind_a_link(tmp_path: Path) -> None:
    elsewhere, output = tmp_path / "elsewhere", tmp_path / "output"
    elsewhere.mkdir()
    output.mkdir()
    (elsewhere / "adapter.txt").write_text("mine")
    (output / "extra").symlink_to(elsewhere)

    def save(folder: str) -> None:
        (Path(folder) / "extra").mkdir()
        (Path(folder) / "extra" / "adapter.txt").write_text("half")
        fails()

    save_model(models.llama(), output, tokenizer=SimpleNamespace(save_pretrained=save))
    assert (elsewhere / "adapter.txt").read_text() == "mine"


def breaks_late(folder: str) -> None:
    """Write one file and a half, as a library does that meets its flaw late."""
    (Path(folder) / "vocab.txt").write_text("half")
    (Path(folder) / "more").mkdir()
    (Path(folder) / "more" / "part").write_text("half")
    fails()


def copies_what_is_gone(folder: str) -> None:
    (Path(folder) / "vocab.txt").write_text("half")
    Path("/nowhere/vocab.txt").read_text()


def leaves_a_link(folder: str) -> None:
    (Path(folder) / "tokenizer.json").symlink_to("/etc/hostname")


class Panic(BaseException):
    """As those of extensions in Rust, which are no ``Exception``."""


def panics(folder: str) -> None:
    raise Panic("of the extension")


@pytest.mark.parametrize("save", [breaks_late, copies_what_is_gone, leaves_a_link, panics])
def test_a_tokenizer_that_fails_leaves_nothing(save: Callable[[str], None], tmp_path: Path) -> None:
    save_model(models.llama(), tmp_path / "without")
    holder = SimpleNamespace(save_pretrained=save)
    report = save_model(models.llama(), tmp_path / "with", tokenizer=holder)
    (warning,) = report.warnings
    assert "left out" in warning
    assert models.contents(tmp_path / "with") == models.contents(tmp_path / "without")


@pytest.mark.parametrize("template", [{"../outside": "x"}, {"default": 5}, 7, ["a", Odd()]])
def test_a_template_that_is_not_valid_costs_no_tokenizer(template: Any, tmp_path: Path) -> None:
    holder = tokenizer("a b", "good")
    holder.chat_template = template
    report = save_model(models.llama(), tmp_path, tokenizer=holder)
    assert holder.chat_template is template
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.get_vocab() == holder.get_vocab()
    if report.warnings:
        assert "without its chat template" in report.warnings[0]
        assert loaded.chat_template is None
    else:
        assert template == 7, "which JSON can hold"


class WritesAnywhere:
    """A tokenizer that makes paths of the names of its templates, as some versions do."""

    def __init__(self, templates: dict[str, str]) -> None:
        self.chat_template: dict[str, str] | None = templates

    def save_pretrained(self, folder: Path) -> None:
        (folder / "tokenizer.json").write_text("{}")
        for name, text in (self.chat_template or {}).items():
            inside = folder / "additional_chat_templates"
            inside.mkdir(exist_ok=True)
            (inside / f"{name}.jinja").write_text(text)


@pytest.mark.parametrize("climb", ["..", "../..", "../../..", "../../../.."])
@pytest.mark.parametrize("held", [False, True])
def test_save_template_whose_name_leads_elsewhere_writes_it_nowhere(
    held: bool, climb: str, tmp_path: Path
) -> None:
    output = tmp_path / "a" / "b" / "out"
    holder: Any = WritesAnywhere({"default": "d", f"{climb}/outside": "x"})
    if held:
        inner, holder = holder, WritesAnywhere({"tools": "t"})
        holder.tokenizer = inner
    report = save_model(models.llama(), output, tokenizer=holder)
    (warning,) = report.warnings
    assert "outside" in warning
    assert "without its chat template" in warning
    assert not list(tmp_path.rglob("outside*"))
    assert (output / "tokenizer.json").exists()


def test_code_that_cannot_be_copied_is_said(tmp_path: Path) -> None:
    kind = type("Mine", (LlamaForCausalLM,), {"__module__": "gone", "_auto_class": "AutoModel"})
    model = models.llama()
    model.__class__ = kind
    report = save_model(model, tmp_path)
    (warning,) = report.warnings
    assert "code of Mine" in warning
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["Mine"]


def test_a_flawed_adapter_config_keeps_what_can_be_stored(tmp_path: Path) -> None:
    model = models.peft()
    model.add_adapter("second", model.peft_config["default"])
    for config in model.peft_config.values():
        config.rank_pattern = {"q_proj": Odd()}
    report = save_model(model, tmp_path)
    assert [warning.split()[0] for warning in report.warnings] == [
        "adapter_config.json",
        "second/adapter_config.json",
    ]
    assert "without rank_pattern.q_proj" in report.warnings[0]
    for folder in (tmp_path, tmp_path / "second"):
        loaded = PeftModel.from_pretrained(models.llama(), folder)
        assert loaded.peft_config["default"].r == 3
        saved = load_file(folder / "adapter_model.safetensors")
        assert saved


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("of_rust", [False, True], ids=["python", "rust"])
def test_an_error_of_the_disk_stays_an_error(number: int, of_rust: bool, tmp_path: Path) -> None:
    def save(folder: str) -> None:
        text = os.strerror(number)
        if of_rust:
            raise Exception(f"{text} (os error {number})")  # as tokenizers has them
        raise OSError(number, text, f"{folder}/tokenizer.json")

    with pytest.raises(SaveError, match=os.strerror(number)):
        save_model(models.llama(), tmp_path, tokenizer=SimpleNamespace(save_pretrained=save))
    assert not list(tmp_path.iterdir())


def test_an_unreadable_source_of_a_companion_is_no_error_of_the_disk(tmp_path: Path) -> None:
    def save(folder: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), "/elsewhere/vocab.txt")

    holder = SimpleNamespace(save_pretrained=save)
    assert save_model(models.llama(), tmp_path, tokenizer=holder).warnings


def warnings_of_two_ranks(rank: int, folder: str) -> tuple[str, ...]:
    model = contradictory() if rank == 0 else models.llama()
    report = save_trained_model({"output_dir": folder}, None, model)
    assert report is None or report.warnings
    return save_model(model, folder).warnings


def test_every_rank_reports_the_same_warnings(tmp_path: Path) -> None:
    first, second = worlds.run(2, warnings_of_two_ranks, str(tmp_path))
    assert first == second != ()
    assert not (tmp_path / staging.STAGING).exists()
