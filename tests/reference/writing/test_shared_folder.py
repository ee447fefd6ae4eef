"""Which folder is meant, on one rank and on several; and what ``recover`` says of it."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.helpers import models, worlds
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from canonical_saver import RequestError, recover, save_model
from canonical_saver import save_trained_model as save_trained
from canonical_saver.cli import main
from canonical_saver.publishing import staging
from canonical_saver.writing import shared_folder


@pytest.mark.parametrize(
    "path",
    ["s3://bucket/x", "hf://user/x", "gs://x", "file:///x", "S3://b", Path("s3://bucket/x")],
)
def test_build_with_a_scheme_is_refused(
    path: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match="folder on this machine"):
        save_model(models.llama(), path)
    with pytest.raises(RequestError, match="folder on this machine"):
        save_trained({"output_dir": path}, None, models.llama())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", ["", "a\0b", 3, None, b"x", "~nobody-of-this-name/x"])
def test_build_without_a_path_is_refused(path: Any) -> None:
    with pytest.raises(RequestError, match="output_dir: expected"):
        save_model(models.llama(), path)


def test_build_expands_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in ("~/x", Path("~/y")):
        report = save_model(models.llama(), path)
        assert report.output_dir == tmp_path / Path(path).name
        assert (report.output_dir / "config.json").exists()


@pytest.mark.parametrize("name", ["a:b", "a:/b", "run: 3 // x", "c:"])
def test_build_takes_names_that_only_look_like_a_scheme(name: str, tmp_path: Path) -> None:
    assert save_model(models.llama(), tmp_path / name).output_dir == tmp_path / name


def rust_tokenizer() -> Tokenizer:
    return Tokenizer(WordLevel({"a": 0}, unk_token="a"))


@pytest.mark.parametrize("tokenizer", ["gpt2", 3, AutoTokenizer, PreTrainedTokenizerFast, {}])
def test_build_with_what_is_no_tokenizer_is_refused(tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="method save_pretrained"):
        save_model(models.llama(), tmp_path / "x", tokenizer=tokenizer)
    with pytest.raises(RequestError, match="method save_pretrained"):
        save_model(models.llama(), tmp_path / "x", tokenizer=rust_tokenizer())
    assert not (tmp_path / "x").exists()


def test_trainer_with_what_is_no_tokenizer_saves_the_weights_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = SimpleNamespace(processing_class=rust_tokenizer())
    save_trained({"output_dir": tmp_path}, trainer, models.llama())
    assert (tmp_path / "model.safetensors").exists()
    assert "Tokenizer cannot be saved" in caplog.text


def test_staging_where_no_folder_can_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    (tmp_path / "file").write_text("mine")
    for name, found in (
        ("dangling", "leads nowhere"),
        ("circle", "leads nowhere"),
        ("file", "a f"),
    ):
        for path in (tmp_path / name, tmp_path / name / "below" / "it"):
            with pytest.raises(RequestError, match=rf"found [\w ]*{found}.*{name}"):
                save_model(models.llama(), path)
    assert not (tmp_path / "gone").exists()


def test_a_save_that_is_refused_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("canonical_saver.publishing.publication.check_mount", lambda _: 1 / 0)
    with pytest.raises(Exception, match="ZeroDivision"):
        save_model(models.llama(), tmp_path / "new" / "folder")
    assert not list(tmp_path.iterdir())


def view(path: str, target: str = "", *, shares_folder: bool = False) -> shared_folder.View:
    return shared_folder.View(path, target or path, shares_folder)


@pytest.mark.parametrize(
    "other",
    [
        view("/b", shares_folder=True),  # by another mount
        view("/a"),  # on another host
        view("/a", "/mnt/b"),  # the same on a host where it is a link
        view("/link", "/a"),
    ],
)
def test_check_takes_another_spelling_of_one_folder(other: shared_folder.View) -> None:
    shared_folder.check([view("/a", shares_folder=True), other])


def test_check_names_the_ranks_with_another_folder() -> None:
    views = [view("/a", shares_folder=True), view("/a"), view("/b"), view("/c")]
    with pytest.raises(RequestError, match="/a on rank 0 and /b on rank 2, /c on rank 3;"):
        shared_folder.check(views)


def save_with_each_its_own_path(rank: int, folder: str) -> tuple[str, str]:
    os.chdir(folder)
    Path(folder, f"link{rank}").symlink_to(folder)
    spelled = (Path(folder, "same"), Path(f"link{rank}", "x", "..", "same"))[rank]
    report = save_model(models.llama(), spelled)
    try:
        save_model(models.llama(), Path(folder, f"rank{rank}"))
    except RequestError as error:
        return str(report.output_dir), str(error)
    return str(report.output_dir), ""


def test_ranks_with_another_folder_are_all_told_and_another_spelling_is_right(
    tmp_path: Path,
) -> None:
    (tmp_path / "x").mkdir()
    first, second = worlds.run(2, save_with_each_its_own_path, str(tmp_path))
    assert first == second
    assert first[0] == str(tmp_path / "same")
    assert all(text in first[1] for text in ("rank0 on rank 0", "rank1 on rank 1"))
    assert not list(tmp_path.glob("rank*"))


@pytest.mark.parametrize("name", ["missing", "file", "link"])
def test_recover_without_a_folder_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(RequestError, match=f"expected the folder of a saved model.*{name}"):
        recover(tmp_path / name)


def test_recover_says_whether_there_is_a_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said() -> str:
        assert main(["recover", str(tmp_path)]) == 0
        return capsys.readouterr().out

    none = f"there is no model in {tmp_path}"
    assert none in said()
    (tmp_path / staging.STAGING / "abc" / "org" / "style").mkdir(parents=True)
    (tmp_path / "org" / "style").mkdir(parents=True)
    assert f"was removed; {none}" in said()
    assert not list(tmp_path.iterdir())
    for model in (models.llama(), models.peft()):
        save_model(model, tmp_path)
        assert none not in said()
        (tmp_path / staging.STAGING).mkdir()
        assert "unchanged" in said()
        for path in tmp_path.iterdir():
            path.unlink()
    named = models.peft()
    named.add_adapter("org/style", named.peft_config["default"])
    named.delete_adapter("default")
    save_model(named, tmp_path)
    assert none not in said()
