"""What is added for other readers leaves the weights and their index as they are without it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
from fixtures.portable.save import make_tokenizer, models, trained
from tests.helpers import models as tiny

from canonical_saver import save_model

INDEX = "model.safetensors.index.json"


def weights_of(folder: Path) -> dict[str, bytes]:
    """The bytes of every weight file and index of the folder, by its name."""
    names = ("*.safetensors", "*.index.json", "*.bin", "*.pt")
    return {path.name: path.read_bytes() for name in names for path in sorted(folder.glob(name))}


def saved_twice(root: Path, make: Callable[[], Any], **options: Any) -> list[dict[str, bytes]]:
    """The weights of one model, saved with and without what is added."""
    model, found = make(), []
    for portable in (True, False):
        folder = root / str(portable)
        report = save_model(model, folder, tokenizer=make_tokenizer(), portable=portable, **options)
        assert bool(report.portability) is portable
        found.append(weights_of(folder))
    return found


@pytest.mark.parametrize("family", ["llama", "llama-tied", "qwen3_moe", "gpt_oss", "deepseek_v3"])
def test_portable_save_in_shards_has_the_same_weights_and_index(
    family: str, tmp_path: Path
) -> None:
    def make() -> Any:
        return trained(models()[family]())

    portable, plain = saved_twice(tmp_path, make, max_shard_size="50KB")
    assert INDEX in plain
    assert len(plain) > 2
    assert portable == plain
    if family == "llama":
        make().save_pretrained(tmp_path / "usual", max_shard_size="50KB")
        assert plain == weights_of(tmp_path / "usual")


def test_portable_save_in_one_file_has_the_same_weights(tmp_path: Path) -> None:
    portable, plain = saved_twice(tmp_path, tiny.llama)
    assert set(plain) == {"model.safetensors"}
    assert portable == plain


def test_portable_save_of_an_adapter_has_the_same_weights(tmp_path: Path) -> None:
    def make() -> Any:
        config = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
        return peft.get_peft_model(tiny.llama(), config)

    portable, plain = saved_twice(tmp_path, make)
    assert set(plain) == {"adapter_model.safetensors"}
    assert portable == plain
