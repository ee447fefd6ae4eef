"""Architectures whose names, ties or heads are not those of a plain causal language model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.helpers import architectures, models, worlds
from tests.helpers.engines import wrap
from tests.helpers.versions import is_at_least
from transformers import AutoConfig, AutoModel, LlamaForCausalLM

from canonical_saver import save_model

SHARDED = ("fsdp1", "fsdp1-flat", "fsdp2", "zero3")
EXPERTS = ("mixtral", "qwen3_moe", "deepseek_v3")
# First parts of the names on the hub, which are not those in memory.
COMPOSITE = {
    "llava": {"language_model", "vision_tower", "multi_modal_projector"},
    "qwen2_vl": {"model", "visual", "lm_head"},
    "gemma3": {"language_model", "vision_tower", "multi_modal_projector"},
}


@pytest.mark.parametrize("name", architectures.MAKE)
def test_folder_of_save_pretrained(name: str, tmp_path: Path) -> None:
    model = architectures.make(name)
    model.save_pretrained(tmp_path / "golden")
    save_model(model, tmp_path / "m", verify="full", portable=False)
    assert models.contents(tmp_path / "m") == models.contents(tmp_path / "golden")


@pytest.mark.parametrize("name", COMPOSITE)
def test_composite_names_stay_through_a_reload(name: str, tmp_path: Path) -> None:
    model = architectures.make(name)
    save_model(model, tmp_path / "first")
    loaded = type(model).from_pretrained(tmp_path / "first")
    save_model(loaded, tmp_path / "second")
    first, second = models.contents(tmp_path / "first"), models.contents(tmp_path / "second")
    assert first["model.safetensors"] == second["model.safetensors"]
    model.save_pretrained(tmp_path / "golden")
    inside, usual = (
        {key.split(".")[0] for key in load_file(tmp_path / folder / "model.safetensors")}
        for folder in ("first", "golden")
    )
    # Before 5.16, transformers writes the names in memory, which it also reads.
    assert inside == (COMPOSITE[name] if is_at_least("transformers", "5.16") else usual)


def save_architectures(rank: int, folder: str) -> None:
    for engine in SHARDED:
        for name in (*EXPERTS, "llava", "t5", "sequence_classification"):
            model = wrap(engine, architectures.make(name))
            save_model(model, f"{folder}/{engine}/{name}", verify="full", portable=False)
    model = wrap("fsdp2", architectures.make("mixed_dtypes"))
    save_model(model, f"{folder}/fsdp2/mixed_dtypes", portable=False)


def test_sharded(tmp_path: Path) -> None:
    """Fused experts are cut across the ranks and come out under their names on the hub."""
    worlds.run(2, save_architectures, str(tmp_path))
    for engine in SHARDED:
        for folder in (tmp_path / engine).iterdir():
            golden = tmp_path / "golden" / folder.name
            if not golden.exists():
                architectures.make(folder.name).save_pretrained(golden)
            assert models.contents(folder) == models.contents(golden), folder


@pytest.mark.parametrize("in_config", [False, True])
@pytest.mark.parametrize("in_memory", [False, True])
def test_ties(in_config: bool, in_memory: bool, tmp_path: Path) -> None:
    model: Any = models.llama(tied=in_config)
    embeddings = model.model.embed_tokens.weight
    other = torch.nn.Parameter(embeddings.detach() + 1)
    model.lm_head.weight = embeddings if in_memory else other
    save_model(model, tmp_path)
    found = load_file(tmp_path / "model.safetensors")
    # Only a tie that loading makes again may leave the head out.
    assert ("lm_head.weight" in found) == (not (in_config and in_memory))
    loaded = LlamaForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)
    assert torch.equal(loaded.model.embed_tokens.weight, embeddings)


CUSTOM = """
from transformers import PreTrainedConfig, PreTrainedModel
import torch

class FineConfig(PreTrainedConfig):
    model_type = "fine-and-own"

class FineModel(PreTrainedModel):
    config_class = FineConfig

    def __init__(self, config):
        super().__init__(config)
        self.layer = torch.nn.Linear(4, 4)
        self.register_buffer("kept", torch.ones(2))
        self.register_buffer("dropped", torch.ones(2), persistent=False)
        self.post_init()

    def forward(self, x):
        return self.layer(x)
"""


def custom_model(folder: str) -> Any:
    Path(folder, "fine.py").write_text(CUSTOM)
    sys.path.insert(0, folder)
    try:
        from fine import FineConfig, FineModel  # type: ignore[import-not-found]
    finally:
        sys.path.remove(folder)
    FineConfig.register_for_auto_class()
    FineModel.register_for_auto_class("AutoModel")
    torch.manual_seed(0)
    return FineModel(FineConfig())


def save_custom(rank: int, folder: str) -> None:
    for engine in ("fsdp1", "fsdp2", "zero3"):
        Path(folder, str(rank)).mkdir(exist_ok=True)
        model = wrap(engine, custom_model(f"{folder}/{rank}"))
        save_model(model, f"{folder}/{engine}")


def test_modeling_code_goes_along(tmp_path: Path) -> None:
    worlds.run(2, save_custom, str(tmp_path))
    expected = custom_model(str(tmp_path)).state_dict()
    assert set(expected) == {"layer.weight", "layer.bias", "kept"}
    for engine in ("fsdp1", "fsdp2", "zero3"):
        folder = tmp_path / engine
        assert (folder / "fine.py").read_text() == CUSTOM
        config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
        assert config.architectures == ["FineModel"]
        loaded = AutoModel.from_pretrained(folder, trust_remote_code=True).state_dict()
        assert all(torch.equal(loaded[key], expected[key]) for key in expected)
