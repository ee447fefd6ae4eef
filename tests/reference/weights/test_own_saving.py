"""Models with a ``save_pretrained`` of their own are saved as it saves them, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tests.helpers import models, worlds
from tests.helpers.engines import wrap
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from canonical_saver import save_model
from canonical_saver.errors import WeightsError


class ValueHead(nn.Module):
    """A wrapper as reinforcement learning has it: the model's own names, and those of a head."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.pretrained_model = inner
        self.config = inner.config
        self.v_head = nn.Linear(32, 1)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        found = self.pretrained_model.state_dict(*args, **kwargs)
        for name, value in self.v_head.state_dict(*args, **kwargs).items():
            found[f"v_head.{name}"] = value
        return found

    def save_pretrained(self, *args: Any, **kwargs: Any) -> Any:
        kwargs["state_dict"] = self.state_dict()
        return self.pretrained_model.save_pretrained(*args, **kwargs)


class Renames(LlamaForCausalLM):  # type: ignore[misc]
    """A model that renames its tensors and writes into its configuration while saving."""

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        state = {name.replace("mlp", "ffn"): value for name, value in self.state_dict().items()}
        self.config.saved_by = "Renames"
        self.generation_config.repetition_penalty = 1.5
        super().save_pretrained(save_directory, state_dict=state, **kwargs)


class Configures(LlamaForCausalLM):  # type: ignore[misc]
    """A model that does something harmless before it is saved."""

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        self.config.saved_by = "Configures"
        super().save_pretrained(*args, **kwargs)


class WritesBeside(LlamaForCausalLM):  # type: ignore[misc]
    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        super().save_pretrained(save_directory, **kwargs)
        torch.save({"head": self.lm_head.state_dict()}, Path(save_directory) / "head.bin")


class KeepsHalf(LlamaForCausalLM):  # type: ignore[misc]
    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        state = {k: v for k, v in self.state_dict().items() if "layers.0" in k}
        super().save_pretrained(save_directory, state_dict=state, **kwargs)


class Fails(LlamaForCausalLM):  # type: ignore[misc]
    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        del save_directory, kwargs
        raise RuntimeError("not today")


class Elsewhere(nn.Module):
    """A module of another library, which saves in a form of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 2)

    def save_pretrained(self, folder: Any) -> None:
        torch.save(self.state_dict(), Path(folder) / "weights.pt")


def _made(kind: type[PreTrainedModel]) -> Any:
    torch.manual_seed(0)
    return kind(LlamaConfig(**models.SIZES))


def _value_head() -> ValueHead:
    torch.manual_seed(0)
    return ValueHead(models.mixtral())


def _same(found: Path, expected: Path) -> None:
    names = ("model.safetensors", "config.json", "generation_config.json")
    for name in names:
        assert (found / name).read_bytes() == (expected / name).read_bytes(), name


@pytest.mark.parametrize("kind", [Renames, Configures])
def test_own_saving_that_is_harmless_is_followed(kind: Any, tmp_path: Path) -> None:
    trained = _made(kind)
    config = trained.config.to_dict()
    save_model(trained, tmp_path / "found", portable=False)
    assert trained.config.to_dict() == config
    assert type(trained) is kind
    _made(kind).save_pretrained(tmp_path / "expected")
    _same(tmp_path / "found", tmp_path / "expected")


def test_value_head_is_saved_beside_the_model_that_has_it(tmp_path: Path) -> None:
    save_model(_value_head(), tmp_path / "found", portable=False)
    _value_head().save_pretrained(tmp_path / "expected")
    _same(tmp_path / "found", tmp_path / "expected")
    config = json.loads((tmp_path / "found" / "config.json").read_text())
    assert config["architectures"] == ["MixtralForCausalLM"]


def _save_value_head(rank: int, engine: str, folder: str) -> None:
    del rank
    save_model(wrap(engine, _value_head()), folder, portable=False)


@pytest.mark.parametrize("engine", ["fsdp2", "zero3"])
def test_value_head_from_shards_is_the_same(engine: str, tmp_path: Path) -> None:
    worlds.run(2, _save_value_head, engine, str(tmp_path / "found"))
    _value_head().save_pretrained(tmp_path / "expected")
    _same(tmp_path / "found", tmp_path / "expected")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: _made(WritesBeside), "WritesBeside.*head.bin"),
        (lambda: _made(KeepsHalf), "embed_tokens.*KeepsHalf"),
        (lambda: _made(Fails), "Fails.*not today"),
        (Elsewhere, "Elsewhere.*weights.pt"),
        (
            lambda: ValueHead(
                get_peft_model(models.llama(), LoraConfig(target_modules=["q_proj"]))
            ),
            "PEFT model.*inside a ValueHead",
        ),
    ],
)
def test_own_saving_that_cannot_be_followed_is_refused(
    make: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=message):
        save_model(make(), tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_own_saving_of_transformers_is_followed(tmp_path: Path) -> None:
    from transformers import CsmConfig, CsmForConditionalGeneration

    sizes = models.SIZES | {"num_codebooks": 3, "head_dim": 8}
    config = CsmConfig(
        **sizes | {"text_vocab_size": 67},
        depth_decoder_config=sizes | {"backbone_hidden_size": 32},
        codec_config={
            "model_type": "mimi",
            "num_filters": 2,
            "hidden_size": 16,
            "upsample_groups": 16,
        },
    )
    torch.manual_seed(0)
    trained = CsmForConditionalGeneration(config)
    save_model(trained, tmp_path / "found", portable=False)
    trained.save_pretrained(tmp_path / "expected")
    _same(tmp_path / "found", tmp_path / "expected")
