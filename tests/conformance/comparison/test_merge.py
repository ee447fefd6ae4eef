"""`check DIR --base BASE --adapter A`: what became of an adapter in a merged model."""

import pytest
import torch
from tests.helpers import saved_folders, trained_folders
from tests.helpers.saved_folders import MODELS, change_json, change_tensors, llama
from tests.helpers.trained_folders import merge, remarks, save_adapter, save_base, wrong

MIXTRAL = MODELS["mixtral"]
EXPERTS = {"target_modules": ["q_proj"], "target_parameters": saved_folders.EXPERTS}
DTYPES = (torch.float32, torch.bfloat16, torch.float16)

KINDS = {
    "plain": (llama, {}),
    "rslora": (llama, {"use_rslora": True, "lora_alpha": 16}),
    "patterns": (
        llama,
        {"rank_pattern": {"v_proj": 2}, "alpha_pattern": {"layers.0.self_attn.q_proj": 32}},
    ),
    "all-linear": (llama, {"target_modules": "all-linear"}),
    "transposed": (
        MODELS["gpt2"],
        {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True},
    ),
    "embeddings": (llama, {"target_modules": ["embed_tokens", "lm_head", "q_proj"]}),
    "modules-to-save": (llama, {"modules_to_save": ["lm_head"]}),
    "experts": (MIXTRAL, EXPERTS),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_check_of_peft_s_merge_is_fine(kind, dtype, tmp_path):
    model, options = KINDS[kind]
    base, adapter, merged = (tmp_path / name for name in ("base", "adapter", "merged"))
    save_base(base, model, dtype)
    save_adapter(adapter, model, dtype, **options)
    merge(merged, adapter, model, dtype)
    assert wrong(merged, base, adapter) == ""
    assert "not merged" in wrong(base, base, adapter)


@pytest.mark.parametrize("loaded", DTYPES, ids=str)
@pytest.mark.parametrize("saved", DTYPES, ids=str)
@pytest.mark.parametrize("stored", DTYPES, ids=str)
def test_check_of_a_merge_in_another_dtype_is_fine(stored, loaded, saved, tmp_path):
    base, adapter, merged = (tmp_path / name for name in ("base", "adapter", "merged"))

    def model():
        return llama().to(stored)

    save_base(base, model, stored)
    save_adapter(adapter, model, stored)
    merge(merged, adapter, model, loaded, save_dtype=saved)
    assert wrong(merged, base, adapter) == ""


@pytest.fixture
def merged_by(tmp_path):
    """Makes a base, an adapter and a merge of it in bfloat16, and tells what is wrong with it."""

    def make(change=None, model=llama, dtype=torch.bfloat16, **options):
        base, adapter, merged = (tmp_path / name for name in ("base", "adapter", "merged"))
        save_base(base, model, dtype)
        save_adapter(adapter, model, dtype, **options)
        merge(merged, adapter, model, dtype, change)
        return merged, base, adapter

    return make


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        (2, "merged twice"),
        (3, "merged 3 times"),
        (1 / 2, "1/2 of its scale"),
        (1 / 3, "1/3 of its scale"),
        (1 / 8, "1/8 of its scale"),
        (-1, "taken away"),
        (0.7, "0.7 times its scale"),
    ],
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_check_of_a_merge_with_another_scale_names_it(factor, words, dtype, merged_by):
    folders = merged_by(trained_folders.scale_by(factor), dtype=dtype)
    assert words in wrong(*folders)


def test_check_of_a_merge_in_two_steps_says_twice(merged_by):
    def change(tuned):
        for module in tuned.modules():
            if hasattr(module, "get_delta_weight"):
                module.base_layer.weight.data += module.get_delta_weight("default")

    assert "merged twice (4 of 4 targets)" in wrong(*merged_by(change))


def test_check_of_a_merge_without_the_rsloras_scale_names_the_factor(merged_by):
    folders = merged_by(trained_folders.scale_by(0.5), use_rslora=True)
    assert "1/2 of its scale" in wrong(*folders)


def test_check_of_a_merge_that_missed_a_layer_names_it(merged_by):
    folders = merged_by(trained_folders.scale_by(0, lambda name: ".layers.1." in name))
    text = wrong(*folders)
    assert "missed 2 of 4 targets" in text
    assert "layers 1;" in text


@pytest.mark.parametrize("merged_experts", [0, 1])
def test_check_of_a_merge_that_missed_experts_names_them(merged_experts, merged_by):
    """Of all parameters, or all but one of the two that are stacked."""

    def is_missed(name):
        return "experts" in name and not (merged_experts and name.endswith("experts"))

    change = trained_folders.scale_by(0, is_missed)
    text = wrong(*merged_by(change, MIXTRAL, **EXPERTS))
    assert "missed" in text
    assert ".experts." in text
    assert ("missed the experts" in text) == (not merged_experts)


def test_check_of_a_merge_of_one_rank_s_rows_says_in_part(merged_by):
    merged, base, adapter = merged_by()
    name = "model.layers.0.self_attn.q_proj.weight"
    old = saved_folders.load_file(base / "model.safetensors")[name]

    def change(tensors):
        tensors[name][16:] = old[16:]
        return tensors

    change_tensors(merged / "model.safetensors", change)
    text = wrong(merged, base, adapter)
    assert "only in part" in text
    assert name in text


@pytest.mark.parametrize("name", ["lm_head.weight", "model.norm.weight"])
def test_check_of_a_merge_that_changed_more_names_it(name, merged_by):
    merged, base, adapter = merged_by()
    change_tensors(merged / "model.safetensors", lambda all_: all_ | {name: all_[name] * 1.5})
    assert f"the adapter does not touch: {name}" in wrong(merged, base, adapter)


def test_check_of_another_adapter_s_merge_says_so(merged_by, tmp_path):
    merged, base, adapter = merged_by()
    change_tensors(
        adapter / "adapter_model.safetensors",
        lambda tensors: {key: value.flip(0) for key, value in tensors.items()},
    )
    assert "not base + scale * B @ A" in wrong(merged, base, adapter)


def test_check_of_a_merge_without_the_saved_module_says_so(merged_by):
    merged, base, adapter = merged_by(modules_to_save=["lm_head"])
    old = saved_folders.load_file(base / "model.safetensors")["lm_head.weight"]
    change_tensors(merged / "model.safetensors", lambda tensors: tensors | {"lm_head.weight": old})
    assert "holds whole, not in the model: lm_head.weight" in wrong(merged, base, adapter)


def test_check_of_a_change_below_the_rounding_is_a_remark(merged_by):
    folders = merged_by(std=1e-5)
    assert wrong(*folders) == ""
    assert "smaller than the rounding" in remarks(*folders)


@pytest.mark.parametrize("key", ["use_dora", "layer_replication"])
def test_check_of_a_merge_that_is_not_known_is_a_remark(key, merged_by):
    merged, base, adapter = merged_by()
    change_json(adapter / "adapter_config.json", **{key: True})
    assert wrong(merged, base, adapter) == ""
    assert f"not judged: a merge of {key}" in remarks(merged, base, adapter)
