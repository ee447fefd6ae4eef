"""What publishing replaces, removes and leaves alone; ``crash/`` cuts it off everywhere."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.helpers import models

from canonical_saver import RequestError, SaveError, recover, save_model
from canonical_saver.publishing import staging


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """An older save in three shards, and files of somebody else."""
    folder = tmp_path / "old"
    save_model(models.llama(seed=1), folder, max_shard_size="30KB")
    (folder / "chat_template.jinja").write_text("kept: no tokenizer comes with the save")
    (folder / "runs").mkdir()
    (folder / "runs" / "events").write_text("strange")
    (folder / "checkpoint-3").mkdir()
    (folder / "checkpoint-3" / "model.safetensors").write_text("strange")
    return folder


def test_stale_files_go_and_strangers_stay(old: Path) -> None:
    save_model(models.peft(), old)
    names = set(models.contents(old))
    assert {"runs/events", "checkpoint-3/model.safetensors", "chat_template.jinja"} <= names
    assert {"adapter_model.safetensors", "adapter_config.json", "README.md"} <= names
    save_model(models.llama(), old)
    names = set(models.contents(old))
    assert not any(name.startswith(("adapter", "model-", "README")) for name in names)
    assert {"runs/events", "checkpoint-3/model.safetensors", "model.safetensors"} <= names


def test_adapters_that_are_no_longer_saved_go(tmp_path: Path) -> None:
    model = models.peft()
    save_model(model, tmp_path / "alone" / "m")
    for name in ("style", "facts"):
        model.add_adapter(name, model.peft_config["default"])
    for format in ("torch", "safetensors"):
        save_model(model, tmp_path / "m", format=format)
    assert {"style/adapter_model.safetensors", "facts/README.md"} <= set(
        models.contents(tmp_path / "m")
    )
    (tmp_path / "m" / "facts" / "notes").write_text("of the user")
    model.delete_adapter("facts")
    save_model(model, tmp_path / "m")
    names = set(models.contents(tmp_path / "m"))
    assert {n for n in names if n.startswith("facts/")} == {"facts/notes"}
    assert "style/adapter_model.safetensors" in names
    model.delete_adapter("style")
    save_model(model, tmp_path / "m")
    assert not (tmp_path / "m" / "style").exists()
    (tmp_path / "m" / "facts" / "notes").unlink()
    (tmp_path / "m" / "facts").rmdir()
    assert models.contents(tmp_path / "m") == models.contents(tmp_path / "alone" / "m")


def test_adapters_of_the_user_stay(tmp_path: Path) -> None:
    """Copied, linked, saved there on their own, kept by a card, or not to be read at all."""
    model = models.peft()
    for name in ("style", "kept", "linked"):
        model.add_adapter(name, model.peft_config["default"])
    output = tmp_path / "m"
    save_model(model, output)
    (output / "kept" / "README.md").write_text("our best")
    shutil.copytree(output / "style", output / "first-style")
    (output / "linked").rename(tmp_path / "linked")
    (output / "linked").symlink_to(tmp_path / "linked")
    save_model(models.peft(), output / "epoch-1")
    models.peft().save_pretrained(output / "peft")
    (output / "hidden" / "README.md").mkdir(parents=True)
    (output / "hidden").chmod(0)
    shutil.rmtree(output / "style")
    before = models.contents(output)
    save_model(models.llama(), output)
    (output / "hidden").chmod(0o700)
    after = models.contents(output)
    assert {n: b for n, b in before.items() if "/" in n} == {
        n: b for n, b in after.items() if "/" in n
    }
    assert (output / "linked" / "adapter_model.safetensors").exists()
    assert {n for n in after if "/" not in n} == {
        *("config.json", "generation_config.json", "model.safetensors")
    }


def test_output_dir_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(RequestError, match="expected a folder"):
        save_model(models.llama(), path)
    assert path.read_text() == "mine"


def test_planted_link(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    output = tmp_path / "output"
    output.mkdir()
    (output / staging.STAGING).symlink_to(other)
    with pytest.raises(RequestError, match="please remove"):
        save_model(models.llama(), output)
    assert not list(other.iterdir())


def test_record_cannot_lead_out(tmp_path: Path) -> None:
    folder = tmp_path / "model" / staging.STAGING
    folder.mkdir(parents=True)
    record = {"version": 1, "folder": "staged", "files": [], "remove": ["../precious"]}
    (folder / staging.RECORD).write_text(json.dumps(record))
    (tmp_path / "precious").write_text("")
    with pytest.raises(RequestError, match="outside"):
        recover(tmp_path / "model")
    assert (tmp_path / "precious").exists()


def test_file_mode(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        save_model(models.llama(), tmp_path / "m")
    finally:
        os.umask(old)
    assert {p.stat().st_mode & 0o777 for p in (tmp_path / "m").iterdir()} == {0o640}


def test_a_save_that_was_given_up_leaves_the_next_one_alone(tmp_path: Path) -> None:
    late = staging.Staging(tmp_path)
    (late.folder / "model.safetensors").write_text("late")
    next_one = staging.Staging(tmp_path)
    (next_one.folder / "model.safetensors").write_text("next")
    assert not late.folder.exists()
    late.abandon()
    with pytest.raises(OSError, match="No such file"):
        late.commit([], 0o644)
    assert next_one.commit([], 0o644) == ["model.safetensors"]
    assert models.contents(tmp_path) == {"model.safetensors": b"next"}


def test_no_room_for_an_adapters_folder_is_met_before_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(models.llama(), tmp_path)
    before = models.contents(tmp_path)
    model = models.peft()
    model.add_adapter("second", model.peft_config["default"])
    make = os.mkdir

    def full(path: Any, *rest: Any) -> None:
        if Path(path) == tmp_path / "second":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        make(path, *rest)

    monkeypatch.setattr(os, "mkdir", full)
    with pytest.raises(SaveError):
        save_model(model, tmp_path)
    assert models.contents(tmp_path) == before
