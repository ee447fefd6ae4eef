"""A progress function, or the terminal of a bar, that fails costs no weights."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.helpers import models
from transformers import LlamaForCausalLM

from canonical_saver import Progress, save_model


def test_save_model_with_a_progress_that_raises_saves_and_asks_no_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Progress] = []

    def tell(now: Progress) -> None:
        told.append(now)
        raise BrokenPipeError("the terminal is gone")

    save_model(models.llama(), tmp_path, max_shard_size="20KB", progress=tell)
    LlamaForCausalLM.from_pretrained(tmp_path)
    assert len(told) == 1
    assert "the terminal is gone" in caplog.text


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("progress", [None, True])
@pytest.mark.parametrize("stream", [closed(), None], ids=["closed", "none"])
def test_save_model_without_a_standard_error_saves(
    progress: bool | None, stream: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    save_model(models.llama(), tmp_path, progress=progress)
    monkeypatch.undo()
    LlamaForCausalLM.from_pretrained(tmp_path)


def test_save_model_interrupted_in_a_progress_stops(tmp_path: Path) -> None:
    def tell(now: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_model(models.llama(), tmp_path / "x", progress=tell)
    assert not (tmp_path / "x" / "model.safetensors").exists()
