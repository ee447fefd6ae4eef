"""What training changed beside an adapter, and embeddings of another vocabulary."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file
from tests.helpers import architectures, models, tuners, worlds
from tests.helpers.engines import wrap
from torch import nn

from canonical_saver import SaveError, save_model
from canonical_saver.weights.adapter import vocabularies
from canonical_saver.weights.saved_tensors import SavedTensor, direct
from canonical_saver.weights.tensors import whole
from canonical_saver.weights.unselected import unselected

WEIGHTS = "adapter_model.safetensors"
ENGINES = ("ddp", "fsdp1", "fsdp2", "zero3")


def test_unselected_tells_what_no_entry_is_made_of() -> None:
    tensor = torch.zeros(3)
    model_tensors = {name: whole(tensor, name) for name in ("kept", "computed", "lost", "frozen")}
    model_tensors["alias"] = whole(tensor, "kept")
    saved_tensors = [
        direct("a", model_tensors["kept"]),
        SavedTensor("b", torch.float32, (3,), None, frozenset({"computed"})),
    ]
    trained = {"kept", "alias", "computed", "lost"}
    assert unselected(trained, model_tensors, [saved_tensors]) == ["lost"]
    assert unselected(trained, model_tensors, [saved_tensors[:1], saved_tensors[1:]]) == ["lost"]
    assert unselected(trained, model_tensors, [[]]) == ["kept", "computed", "lost", "alias"]


def beside(config: Any | None = None) -> Any:
    """A norm, a targeted layer's own weight and the embeddings are trained without being asked."""
    model: Any = get_peft_model(
        models.llama(), config or LoraConfig(target_modules=["q_proj"], r=3)
    )
    base = model.get_base_model()
    base.model.norm.weight.requires_grad_(True)
    base.model.embed_tokens.weight.requires_grad_(True)
    getattr(base.model.layers[0].self_attn.q_proj, "base_layer", base.lm_head).requires_grad_(True)
    return tuners.filled(model)


PROMPT = PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")


@pytest.mark.parametrize("config", [None, PROMPT], ids=["lora", "prompt"])
def test_save_model_trained_without_modules_to_save_reloads_equal(
    config: Any, tmp_path: Path
) -> None:
    model = beside(config)
    (warning,) = save_model(model, tmp_path).warnings
    assert re.search(r"norm.weight'.* with the adapter: trained", warning)
    loaded = PeftModel.from_pretrained(models.llama(), tmp_path)
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key


def everything() -> Any:
    model = get_peft_model(models.llama(), LoraConfig(target_modules=["q_proj"], r=3))
    return tuners.filled(model.requires_grad_(True))


def save_beside(rank: int, folder: str) -> None:
    for engine in ENGINES:
        save_model(wrap(engine, beside()), f"{folder}/{engine}")
    # A flat parameter requires a gradient as a whole.
    save_model(wrap("fsdp1-flat", everything()), f"{folder}/fsdp1-flat")


def test_save_model_trained_without_modules_to_save_sharded_writes_the_same(tmp_path: Path) -> None:
    worlds.run(2, save_beside, str(tmp_path))
    save_model(beside(), tmp_path / "one")
    save_model(everything(), tmp_path / "everything")
    for engine in ENGINES:
        found = (tmp_path / engine / WEIGHTS).read_bytes()
        assert found == (tmp_path / "one" / WEIGHTS).read_bytes(), engine
    found = (tmp_path / "fsdp1-flat" / WEIGHTS).read_bytes()
    assert found == (tmp_path / "everything" / WEIGHTS).read_bytes()


QUIET: dict[str, dict[str, Any]] = {
    "lora": {},
    "dora": {"use_dora": True},
    "biases": {"bias": "all"},
    "modules": {"modules_to_save": ["lm_head", "embed_tokens"]},
    "tokens": {"trainable_token_indices": [1, 5]},
    "tied tokens": {"trainable_token_indices": [1, 5]},
}


@pytest.mark.parametrize("kind", QUIET)
@pytest.mark.parametrize("prepared", [False, True])
def test_save_model_frozen_base_adds_nothing(kind: str, prepared: bool, tmp_path: Path) -> None:
    config = LoraConfig(**{"target_modules": ["q_proj"], "r": 3} | QUIET[kind])
    base: Any = models.llama(biases=True, tied=kind == "tied tokens")
    if prepared:
        base.enable_input_require_grads()
    model: Any = get_peft_model(base, config)
    model.save_pretrained(tmp_path / "golden")
    model.add_adapter("second", LoraConfig(target_modules=["v_proj"], r=2))
    assert save_model(model, tmp_path / "m").warnings == ()
    found = load_file(tmp_path / "m" / WEIGHTS)
    assert found.keys() == load_file(tmp_path / "golden" / WEIGHTS).keys()


def test_save_model_original_of_a_module_to_save_is_not_taken_for_trained(tmp_path: Path) -> None:
    model: Any = get_peft_model(
        models.llama(), LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"])
    )
    model.get_base_model().lm_head.original_module.weight.requires_grad_(True)
    assert save_model(model, tmp_path).warnings == ()
    assert not any("original_module" in name for name in load_file(tmp_path / WEIGHTS))


def resnet() -> Any:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 1]}
    config = transformers.ResNetConfig(**sizes, layer_type="basic")
    return transformers.ResNetForImageClassification(config)


def tuned_resnet(steps: int) -> Any:
    config = LoraConfig(target_modules=["convolution"], modules_to_save=["classifier"], r=2)
    model = tuners.filled(get_peft_model(resnet(), config))
    torch.manual_seed(2)
    for _ in range(steps):
        model(pixel_values=torch.randn(2, 3, 8, 8))
    return model


@pytest.mark.parametrize("steps", [0, 2])
def test_save_model_statistics_of_batch_norms_reload_equal(steps: int, tmp_path: Path) -> None:
    model = tuned_resnet(steps).eval()
    save_model(model, tmp_path)
    loaded = PeftModel.from_pretrained(resnet(), tmp_path).eval()
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key
    assert any("running_mean" in n for n in load_file(tmp_path / WEIGHTS)) == bool(steps)


def test_save_model_trained_outside_of_the_base_is_refused_by_name(tmp_path: Path) -> None:
    model = models.peft()
    model.value_head = nn.Linear(32, 1)
    with pytest.raises(SaveError, match=r"'value_head.weight', 'value_head.bias'"):
        save_model(model, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_vocabularies_finds_them_at_any_depth() -> None:
    values = {"a": {"vocab_size": 3, "b": {"vocab_size": 4, "c": 5}}, "vocab_size": 6}
    assert vocabularies(values) == {"a.vocab_size": 3, "a.b.vocab_size": 4, "vocab_size": 6}


@pytest.mark.parametrize("name", ["llava", "qwen2_vl", "gemma3", "t5", "whisper"])
@pytest.mark.parametrize("grown", [False, True])
def test_save_model_new_tokens_of_composite_models_reload(
    name: str, grown: bool, tmp_path: Path
) -> None:
    base = architectures.make(name)
    base.save_pretrained(tmp_path / "base")

    def loaded(seed: int) -> Any:
        model = type(base).from_pretrained(tmp_path / "base")
        if grown:
            torch.manual_seed(seed)
            model.resize_token_embeddings(model.get_input_embeddings().weight.shape[0] + 4)
        return model

    targets = r".*(q_proj|\.q)$"
    model: Any = get_peft_model(loaded(1), LoraConfig(target_modules=targets, r=2))
    tuners.filled(model)
    save_model(model, tmp_path / "m")
    names = [n for n in load_file(tmp_path / "m" / WEIGHTS) if "lora" not in n]
    assert bool(names) == grown, names
    again = PeftModel.from_pretrained(loaded(2), tmp_path / "m").get_base_model()
    for get in ("get_input_embeddings", "get_output_embeddings"):
        expected, found = getattr(model.get_base_model(), get)(), getattr(again, get)()
        assert torch.equal(expected.weight, found.weight), get


def test_save_model_part_of_a_larger_base_is_compared_with_its_own_section(tmp_path: Path) -> None:
    whole_model: Any = architectures.make("llava")
    whole_model.save_pretrained(tmp_path / "base")
    text: Any = whole_model.model.language_model
    text.name_or_path = str(tmp_path / "base")
    text.config._name_or_path = str(tmp_path / "base")
    model: Any = get_peft_model(text, LoraConfig(target_modules=["q_proj"], r=2))
    save_model(model, tmp_path / "m")
    assert all("lora" in name for name in load_file(tmp_path / "m" / WEIGHTS))
