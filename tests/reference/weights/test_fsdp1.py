"""FSDP1 handed over without its root: what the root holds is found, or refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.helpers import models, worlds
from tests.helpers.engines import wrap

from canonical_saver import save_model
from canonical_saver.errors import WeightsError

ENGINES = ("fsdp1", "fsdp1-flat")


def _train(wrapped: Any) -> None:
    tokens = torch.arange(12)[None]
    wrapped(input_ids=tokens, labels=tokens).loss.backward()


def _untrained(rank: int, engine: str, folder: str) -> str:
    del rank
    wrapped = wrap(engine, models.llama())
    with pytest.raises(WeightsError) as failure:
        save_model(wrapped.module, Path(folder) / "m")
    return str(failure.value)


def _trained(rank: int, engine: str, folder: str) -> None:
    del rank
    wrapped = wrap(engine, models.llama())
    _train(wrapped)
    save_model(wrapped, Path(folder) / "root")
    save_model(wrapped.module, Path(folder) / "inner")
    layer = wrapped.module.model.layers[1]
    save_model(layer, Path(folder) / "layer")


@pytest.mark.parametrize("engine", ENGINES)
def test_without_the_root_before_training_is_refused_by_name(engine: str, tmp_path: Path) -> None:
    first, second = worlds.run(2, _untrained, engine, str(tmp_path))
    assert first == second
    assert "weight': expected the FSDP instance that holds this parameter" in first
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("engine", ENGINES)
def test_without_the_root_after_training_is_found(engine: str, tmp_path: Path) -> None:
    worlds.run(2, _trained, engine, str(tmp_path))
    expected = models.contents(tmp_path / "root")
    assert models.contents(tmp_path / "inner") == expected
    save_model(models.llama().model.layers[1], tmp_path / "plain")
    assert models.contents(tmp_path / "layer") == models.contents(tmp_path / "plain")
