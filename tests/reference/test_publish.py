"""Publishing is all or nothing, wherever it is cut off."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.reference import models

from canonical_saver import RequestError, SaveError, publish, recover, save_model


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


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


def calls_of_the_file_system() -> Iterator[tuple[Any, str]]:
    for name in (
        "open",
        "pwritev",
        "fsync",
        "mkdir",
        "rename",
        "replace",
        "unlink",
        "rmdir",
        "chmod",
    ):
        yield os, name


def kill_at(monkeypatch: pytest.MonkeyPatch, number: int) -> list[str]:
    """Let the process die at its ``number``-th call that may change the file system."""
    made: list[str] = []
    for module, name in calls_of_the_file_system():
        real = getattr(module, name)

        def call(*arguments: Any, _real: Any = real, _name: str = name, **options: Any) -> Any:
            if len(made) == number:
                raise Killed(_name)
            made.append(_name)
            return _real(*arguments, **options)

        monkeypatch.setattr(module, name, call)
    return made


def test_every_point_of_a_crash(old: Path, tmp_path: Path) -> None:
    before = models.contents(old)
    new_model = models.llama(seed=2, tied=True)
    reference = tmp_path / "reference"
    shutil.copytree(old, reference)
    save_model(new_model, reference)
    after = models.contents(reference)
    points = 0
    outcomes = set()
    while True:
        folder = tmp_path / "crashed"
        shutil.copytree(old, folder)
        with pytest.MonkeyPatch.context() as patch:
            # A dead process removes nothing.
            patch.setattr(publish.Staging, "abandon", lambda self: None)
            kill_at(patch, points)
            try:
                save_model(new_model, folder)
                finished = True
            except Killed:
                finished = False
        if finished:
            break
        points += 1
        found = {k: v for k, v in models.contents(folder).items() if publish.STAGING not in k}
        loads = {"config.json", "model.safetensors.index.json"} <= found.keys() or (
            {"config.json", "model.safetensors"} <= found.keys()
        )
        assert not loads or found in (before, after), "a mixture that loads"
        recover(folder)
        found = models.contents(folder)
        assert found in (before, after)
        outcomes.add(found == after)
        shutil.rmtree(folder)
    print(f"{points} points of a crash, outcomes {outcomes}")
    assert points > 50
    assert outcomes == {False, True}


def test_stale_files_go_and_strangers_stay(old: Path) -> None:
    save_model(models.peft(), old)
    names = set(models.contents(old))
    assert {"runs/events", "checkpoint-3/model.safetensors", "chat_template.jinja"} <= names
    assert {"adapter_model.safetensors", "adapter_config.json", "README.md"} <= names
    assert not any(name.startswith("model") for name in names)
    save_model(models.llama(), old)
    names = set(models.contents(old))
    assert not any(name.startswith("adapter") for name in names)
    assert "model.safetensors" in names


def test_a_write_error_leaves_the_old_model(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = models.contents(old)

    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwritev", full)
    with pytest.raises(SaveError, match=r"rank 0 .*No space left"):
        save_model(models.llama(), old)
    assert models.contents(old) == before


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
    (output / publish.STAGING).symlink_to(other)
    with pytest.raises(RequestError, match="please remove"):
        save_model(models.llama(), output)
    assert not list(other.iterdir())


def test_record_cannot_lead_out(tmp_path: Path) -> None:
    staging = tmp_path / "model" / publish.STAGING
    staging.mkdir(parents=True)
    record = {"version": 1, "folder": "staged", "files": [], "remove": ["../precious"]}
    (staging / publish.RECORD).write_text(json.dumps(record))
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
