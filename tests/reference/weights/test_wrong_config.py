"""A model of transformers whose configuration is something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.helpers import models

from canonical_saver import SaveError, prove, save_model


@pytest.mark.parametrize("config", [{"model_type": "llama"}, None, "config.json", 3])
def test_model_with_another_kind_of_config_is_refused_before_the_first_byte(
    config: Any, tmp_path: Path
) -> None:
    model: Any = models.llama()
    save_model(model, tmp_path / "before")
    model.config = config
    kind = type(config).__name__
    text = f"expected the LlamaConfig of a LlamaForCausalLM, found a {kind}"
    with pytest.raises(SaveError, match=text):
        save_model(model, tmp_path / "m")
    with pytest.raises(SaveError, match=text):
        prove(model, tmp_path / "before")
    assert not (tmp_path / "m").exists()
