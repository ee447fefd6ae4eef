"""The outputs in docs/guides/prove.md are what `prove` prints."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.helpers import damaged_folders as damaged
from tests.helpers import models

from canonical_saver import prove

PAGE = Path(__file__).parents[3] / "docs" / "guides" / "prove.md"


def wrapped(tensors: damaged.Tensors) -> None:
    tensors["module.lm_head.weight"] = tensors.pop("lm_head.weight")


def narrow(tensors: damaged.Tensors) -> None:
    tensors.update({name: tensor.bfloat16() for name, tensor in tensors.items()})


@pytest.mark.parametrize("name", ["run", "bit", "step", "wrapper", "narrow", "stale"])
def test_page_shows_what_prove_says(name: str, tmp_path: Path) -> None:
    model = models.llama()
    run, folder = tmp_path / "run", tmp_path / name
    model.save_pretrained(run)
    if name == "bit":
        damaged.flip(run, folder, "model.embed_tokens.weight", 40 * 32 * 4 + 5)
    elif name == "step":
        models.llama(seed=1).save_pretrained(folder)
    elif name == "wrapper":
        damaged.rewritten(run, folder, wrapped)
    elif name == "narrow":
        damaged.rewritten(run, folder, narrow)
    elif name == "stale":
        model.save_pretrained(folder)
        (folder / "old.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    text = prove(model, folder).summary.replace(str(tmp_path), "/models")
    assert f"```\n{text}\n```" in PAGE.read_text()
