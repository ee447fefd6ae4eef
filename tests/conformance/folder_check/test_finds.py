"""``check`` finds what headers and configuration alone decide, and names the clause."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from tests.helpers.saved_folders import (
    change_json,
    change_tensors,
    defects,
    save_adapter,
    save_model,
)

from saver_conformance.folder_check.audit import audit

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Sound folders by name, each made once and copied for a test."""
    made = {}

    def get(kind, name):
        if (kind, name) not in made:
            folder = tmp_path_factory.mktemp("saved") / name
            if kind == "adapter":
                save_adapter(folder, name)
            else:
                save_model(folder, name.removesuffix("-shards"), **_options(name))
            assert defects(folder) == set()
            made[kind, name] = folder
        return made[kind, name]

    return get


def _options(name):
    return {"max_shard_size": "20KB"} if name.endswith("-shards") else {}


def tensors(file, change):
    return lambda folder: change_tensors(folder / file, change)


def renamed(file, old, new):
    return tensors(file, lambda found: {name.replace(old, new, 1): t for name, t in found.items()})


def without(file, part):
    return tensors(file, lambda found: {name: t for name, t in found.items() if part not in name})


def mapped(file, part, function):
    return tensors(
        file, lambda found: {n: function(t) if part in n else t for n, t in found.items()}
    )


def added(file, name, tensor):
    return tensors(file, lambda found: {**found, name: tensor})


def settings(file, **changes):
    return lambda folder: change_json(folder / file, **changes)


def removed(name):
    return lambda folder: (folder / name).unlink()


def moved(old, new):
    return lambda folder: (folder / old).rename(folder / new)


def both(*changes):
    def change(folder):
        for one in changes:
            one(folder)

    return change


def dtype_in_header(file, tensor, dtype):
    """Change a dtype for another of the same size, on paper alone."""

    def change(folder):
        content = (folder / file).read_bytes()
        end = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:end])
        entry = header[tensor]
        if dtype.startswith("F6"):
            entry["shape"] = [(entry["data_offsets"][1] - entry["data_offsets"][0]) * 8 // 6]
            entry["data_offsets"][1] = entry["data_offsets"][0] + entry["shape"][0] * 6 // 8
        entry["dtype"] = dtype
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        (folder / file).write_bytes(len(text).to_bytes(8, "little") + text + content[end:])

    return change


def empty(tensor):
    return torch.empty(0)


Q = "base_model.model.model.layers.0.self_attn.q_proj"
A = f"{Q}.lora_A.weight"

ADAPTERS = {
    "no tensors": ("lora", tensors(ADAPTER, lambda found: {}), "TENSOR-001"),
    "placeholders": ("lora", mapped(ADAPTER, "", empty), "TENSOR-004"),
    "one placeholder": ("lora", mapped(ADAPTER, A, empty), "TENSOR-004"),
    "placeholders of IA3": ("ia3", mapped(ADAPTER, "", empty), "TENSOR-004"),
    "placeholder of a module saved whole": (
        "modules-to-save",
        mapped(ADAPTER, "lm_head", empty),
        "TENSOR-004",
    ),
    "flattened": ("lora", mapped(ADAPTER, A, torch.flatten), "TENSOR-004"),
    "FSDP1's names": (
        "lora",
        renamed(ADAPTER, ".self_attn", "._fsdp_wrapped_module.self_attn"),
        "TENSOR-003",
    ),
    "names of checkpointing": (
        "lora",
        renamed(ADAPTER, "layers.0.", "layers.0._checkpoint_wrapped_module."),
        "TENSOR-003",
    ),
    "names of compile": ("lora", renamed(ADAPTER, "", "_orig_mod."), "TENSOR-003"),
    "names of DDP": ("lora", renamed(ADAPTER, "", "module."), "TENSOR-003"),
    "names of IA3 under compile": (
        "ia3",
        renamed(ADAPTER, "model.layers", "_orig_mod.model.layers"),
        "TENSOR-003",
    ),
    "no prefix": ("lora", renamed(ADAPTER, "base_model.model.", ""), "TENSOR-003"),
    "adapter's name": ("lora", renamed(ADAPTER, ".weight", ".default.weight"), "TENSOR-003"),
    "another adapter's name": ("lora", renamed(ADAPTER, ".weight", ".style.weight"), "TENSOR-003"),
    "adapter's name in embeddings": (
        "embeddings",
        renamed(ADAPTER, "embedding_A", "embedding_A.default"),
        "TENSOR-003",
    ),
    "adapter's name in IA3": ("ia3", renamed(ADAPTER, "ia3_l", "ia3_l.default"), "TENSOR-003"),
    "adapter's name in AdaLoRA": (
        "adalora",
        renamed(ADAPTER, "lora_E", "lora_E.default"),
        "TENSOR-003",
    ),
    "adapter's name in a module saved whole": (
        "modules-to-save",
        renamed(ADAPTER, "lm_head.weight", "lm_head.modules_to_save.default.weight"),
        "TENSOR-003",
    ),
    "no lora_A": ("lora", without(ADAPTER, "lora_A"), "TENSOR-001"),
    "no lora_B of one": ("lora", without(ADAPTER, f"{Q}.lora_B"), "TENSOR-001"),
    "half of the embeddings": ("embeddings", without(ADAPTER, "embedding_B"), "TENSOR-001"),
    "no LoRA at all": ("modules-to-save", without(ADAPTER, "lora_"), "TENSOR-001"),
    "another tuner's": ("lora", settings(ADAPTER_CONFIG, peft_type="ADALORA"), "TENSOR-003"),
    "lower ranks": (
        "lora",
        tensors(
            ADAPTER,
            lambda found: {n: t[:2] if "lora_A" in n else t[:, :2] for n, t in found.items()},
        ),
        "ADAPTER-003",
    ),
    "another rank in the configuration": ("lora", settings(ADAPTER_CONFIG, r=8), "ADAPTER-003"),
    "a shard of lora_A": ("lora", mapped(ADAPTER, A, lambda t: t[:2]), "ADAPTER-003"),
    "no rank": ("lora", settings(ADAPTER_CONFIG, r=0), "ADAPTER-003"),
    "the default rank": ("lora", settings(ADAPTER_CONFIG, r=None), "ADAPTER-003"),
    "another pattern": (
        "lora-rank-pattern",
        settings(ADAPTER_CONFIG, rank_pattern={"v_proj": 2}),
        "ADAPTER-003",
    ),
    "no pattern": ("lora-rank-pattern", settings(ADAPTER_CONFIG, rank_pattern={}), "ADAPTER-003"),
    "no magnitudes": ("dora", without(ADAPTER, "magnitude"), "TENSOR-001"),
    "no magnitude of one": ("dora", without(ADAPTER, f"{Q}.lora_magnitude"), "TENSOR-001"),
    "a shard of a magnitude": ("dora", mapped(ADAPTER, "magnitude", lambda t: t[:8]), "TENSOR-004"),
    "magnitudes without DoRA": ("dora", settings(ADAPTER_CONFIG, use_dora=False), "ADAPTER-007"),
    "biases without the setting": (
        "lora-with-bias",
        settings(ADAPTER_CONFIG, lora_bias=False),
        "ADAPTER-007",
    ),
    "no biases": ("lora-with-bias", without(ADAPTER, ".bias"), "TENSOR-001"),
    "a target too few": (
        "lora",
        settings(ADAPTER_CONFIG, target_modules=["v_proj"]),
        "ADAPTER-004",
    ),
    "no module saved whole": (
        "modules-to-save",
        tensors(ADAPTER, lambda found: {n: t for n, t in found.items() if "lora_" in n}),
        "ADAPTER-005",
    ),
    "no tokens": ("token-indices", without(ADAPTER, "tokens_delta"), "TENSOR-001"),
    "tokens too few": (
        "token-indices",
        mapped(ADAPTER, "tokens_delta", lambda t: t[:1]),
        "TENSOR-004",
    ),
    "no tokens of the tuner's": (
        "trainable-tokens",
        renamed(ADAPTER, "trainable_tokens_delta", "weight"),
        "TENSOR-001",
    ),
    "no prompt": (
        "prompt-tuning",
        renamed(ADAPTER, "prompt_embeddings", "embedding.weight"),
        "TENSOR-001",
    ),
    "half a prompt": ("prompt-tuning", mapped(ADAPTER, "prompt", lambda t: t[:2]), "TENSOR-004"),
    "a flat parameter": (
        "lora",
        added(ADAPTER, "base_model.model._flat_param", torch.zeros(3)),
        "TENSOR-002",
    ),
    "a dtype unknown to torch": ("lora", dtype_in_header(ADAPTER, A, "F6_E2M3"), "TENSOR-005"),
    "no configuration": ("lora", removed(ADAPTER_CONFIG), "FILES-002"),
    "no weights": ("lora", removed(ADAPTER), "FILES-002"),
    "no kind": ("lora", settings(ADAPTER_CONFIG, peft_type=None), "ADAPTER-002"),
    "cut off": (
        "lora",
        lambda f: (f / ADAPTER).write_bytes((f / ADAPTER).read_bytes()[:-1]),
        "FORMAT-002",
    ),
    "no byte": ("lora", lambda f: (f / ADAPTER).write_bytes(b""), "FORMAT-001"),
}


@pytest.mark.parametrize("broken", ADAPTERS)
def test_check_of_a_broken_adapter_names_the_clause(saved, tmp_path, broken):
    name, change, clause = ADAPTERS[broken]
    folder = tmp_path / "adapter"
    shutil.copytree(saved("adapter", name), folder)
    change(folder)
    assert clause in defects(folder)


def _shard_of_rows(tensor):
    return tensor[: len(tensor) // 2]


def _first_shard(folder):
    return sorted(folder.glob("model-*.safetensors"))[0]


def _empty_first_shard(folder):
    change_tensors(_first_shard(folder), lambda found: {})


def _index_names_a_missing_shard(folder):
    index = json.loads((folder / INDEX).read_text())
    name = next(iter(index["weight_map"]))
    change_json(
        folder / INDEX, weight_map={**index["weight_map"], name: "model-00009-of-00009.safetensors"}
    )


def _index_forgets_a_shard(folder):
    index = json.loads((folder / INDEX).read_text())
    gone = _first_shard(folder).name
    left = {name: file for name, file in index["weight_map"].items() if file != gone}
    change_json(folder / INDEX, weight_map=left)


def _metadata(folder):
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content.replace(b'"format":"pt"', b'"format":"np"'))


def _pickle_without_bytes(folder):
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")


def _pickled_index_without_shards(folder):
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model-00001-of-00002.bin").write_bytes(b"1")
    names = {"a": "pytorch_model-00001-of-00002.bin", "b": "pytorch_model-00002-of-00002.bin"}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": names}))


def _single_beside_shards(folder):
    shutil.copy(_first_shard(folder), folder / WEIGHTS)


HEAD, EMBEDDINGS = "lm_head.weight", "model.embed_tokens.weight"
WQ = "layers.0.self_attn.q_proj.weight"
MODELS = {
    "no tensors": ("llama", tensors(WEIGHTS, lambda found: {}), "TENSOR-001"),
    "placeholders": ("llama", mapped(WEIGHTS, "", empty), "TENSOR-004"),
    "placeholders of BERT": ("bert", mapped(WEIGHTS, "", empty), "TENSOR-004"),
    "one placeholder": ("vit", mapped(WEIGHTS, "classifier.weight", empty), "TENSOR-004"),
    "names of DDP": ("llama", renamed(WEIGHTS, "", "module."), "TENSOR-003"),
    "names of DDP around BERT": ("bert", renamed(WEIGHTS, "", "module."), "TENSOR-003"),
    "names of compile": ("llama", renamed(WEIGHTS, "", "_orig_mod."), "TENSOR-003"),
    "names of FSDP1": (
        "t5",
        renamed(WEIGHTS, ".block.", "._fsdp_wrapped_module.block."),
        "TENSOR-003",
    ),
    "one name of checkpointing": (
        "llama",
        renamed(WEIGHTS, WQ, f"layers.0._checkpoint_wrapped_module.{WQ.removeprefix('layers.0.')}"),
        "TENSOR-003",
    ),
    "base_layer": ("llama", renamed(WEIGHTS, "q_proj.", "q_proj.base_layer."), "TENSOR-003"),
    "base_layer in BERT": ("bert", renamed(WEIGHTS, "query.", "query.base_layer."), "TENSOR-003"),
    "PEFT's prefix": ("llama", renamed(WEIGHTS, "", "base_model.model."), "TENSOR-003"),
    "a LoRA that was not merged": (
        "llama",
        added(WEIGHTS, f"model.{WQ[:-6]}lora_A.weight", torch.zeros(4, 32)),
        "TENSOR-003",
    ),
    "a module saved whole": (
        "llama",
        renamed(WEIGHTS, HEAD, "lm_head.original_module.weight"),
        "TENSOR-003",
    ),
    "a flat parameter": ("llama", added(WEIGHTS, "_flat_param", torch.zeros(3)), "TENSOR-002"),
    "a layer too few": ("llama", without(WEIGHTS, ".layers.1."), "TENSOR-001"),
    "a weight too few": ("qwen3", without(WEIGHTS, WQ), "TENSOR-001"),
    "fewer layers in the configuration": (
        "mistral",
        settings("config.json", num_hidden_layers=1),
        "TENSOR-002",
    ),
    "a prefix too many": ("llama", renamed(WEIGHTS, "model.", "model.model."), "TENSOR-001"),
    "the names of another model": ("qwen2", renamed(WEIGHTS, "", "llm."), "TENSOR-001"),
    "no head": ("llama", without(WEIGHTS, HEAD), "TENSOR-001"),
    "no embeddings": ("llama", without(WEIGHTS, EMBEDDINGS), "TENSOR-001"),
    "a shard of the embeddings": (
        "llama",
        mapped(WEIGHTS, EMBEDDINGS, _shard_of_rows),
        "TENSOR-004",
    ),
    "a shard of a weight": ("qwen2", mapped(WEIGHTS, WQ, _shard_of_rows), "TENSOR-004"),
    "a flattened weight": ("gemma", mapped(WEIGHTS, WQ, torch.flatten), "TENSOR-004"),
    "rows of BERT": ("bert", mapped(WEIGHTS, "word_embeddings", _shard_of_rows), "TENSOR-004"),
    "rows of GPT-2": ("gpt2", mapped(WEIGHTS, "wte", _shard_of_rows), "TENSOR-004"),
    "rows of T5": ("t5", mapped(WEIGHTS, "shared", torch.flatten), "TENSOR-004"),
    "another vocabulary": ("llama", settings("config.json", vocab_size=70), "TENSOR-004"),
    "another width": ("llama", settings("config.json", hidden_size=64), "TENSOR-004"),
    "more heads": ("llama", settings("config.json", num_key_value_heads=4), "TENSOR-004"),
    "a dtype unknown to torch": (
        "bert",
        dtype_in_header(WEIGHTS, "classifier.weight", "F6_E3M2"),
        "TENSOR-005",
    ),
    "whole numbers": ("llama", dtype_in_header(WEIGHTS, HEAD, "I32"), "TENSOR-005"),
    "metadata of another format": ("llama", _metadata, "FORMAT-003"),
    "another name": ("llama", moved(WEIGHTS, "weights.safetensors"), "FILES-001"),
    "no weights": ("llama", removed(WEIGHTS), "FILES-001"),
    "no configuration": ("llama", removed("config.json"), "META-001"),
    "no JSON": ("llama", lambda f: (f / "generation_config.json").write_text("{"), "META-006"),
    "no JSON for a tokenizer": (
        "llama",
        lambda f: (f / "tokenizer.json").write_text("{"),
        "META-007",
    ),
    "a pickle without bytes": ("llama", _pickle_without_bytes, "FILES-001"),
    "pickled shards that are not there": ("llama", _pickled_index_without_shards, "FILES-001"),
    "adapter's configuration alone": (
        "llama",
        lambda f: (f / ADAPTER_CONFIG).write_text('{"peft_type": "LORA"}'),
        "FILES-002",
    ),
    "no index": ("llama-shards", removed(INDEX), "FILES-001"),
    "an empty shard": ("llama-shards", _empty_first_shard, "FORMAT-004"),
    "a shard of no bytes": (
        "llama-shards",
        lambda f: _first_shard(f).write_bytes(b""),
        "FORMAT-001",
    ),
    "a shard too few": ("llama-shards", lambda f: _first_shard(f).unlink(), "FILES-001"),
    "a shard that the index invents": ("llama-shards", _index_names_a_missing_shard, "FILES-001"),
    "a shard that the index forgets": ("llama-shards", _index_forgets_a_shard, "FORMAT-004"),
    "an index without metadata": ("llama-shards", settings(INDEX, metadata=None), "FORMAT-004"),
    "an index without a map": ("llama-shards", settings(INDEX, weight_map=None), "FORMAT-004"),
    "a single file beside shards": ("llama-shards", _single_beside_shards, "FILES-003"),
}


@pytest.mark.parametrize("broken", MODELS)
def test_check_of_a_broken_model_names_the_clause(saved, tmp_path, broken):
    name, change, clause = MODELS[broken]
    folder = tmp_path / "model"
    shutil.copytree(saved("model", name), folder)
    change(folder)
    assert clause in defects(folder)


def test_check_of_a_tied_head_that_is_saved_twice_finds_a_deviation(saved, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(saved("model", "llama-tied"), folder)
    head = load_file(folder / WEIGHTS)[EMBEDDINGS]
    change_tensors(folder / WEIGHTS, lambda found: {**found, HEAD: head.clone()})
    assert audit(folder).clauses["TENSOR-007"].count == 1
    assert defects(folder) == set()


def test_check_of_base_weights_in_an_adapter_says_so_and_accuses_nobody(saved, tmp_path):
    # They may have been trained beside the adapter, and PEFT loads them.
    folder = tmp_path / "adapter"
    shutil.copytree(saved("adapter", "lora"), folder)
    added(ADAPTER, f"{Q}.base_layer.weight", torch.zeros(32, 32))(folder)
    assert defects(folder) == set()
    assert [remark.tensor for remark in audit(folder).remarks] == [f"{Q}.base_layer.weight"]


def test_check_of_a_class_under_a_wrappers_name_says_so_and_accuses_nobody(saved, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(saved("model", "llama"), folder)
    change_json(folder / "config.json", architectures=["FSDPLlamaForCausalLM"])
    assert defects(folder) == set()
    assert "FSDPLlamaForCausalLM" in audit(folder).remarks[0].text


def test_check_of_expressions_of_strangers_runs_none(saved, tmp_path):
    folder = tmp_path / "adapter"
    shutil.copytree(saved("adapter", "lora"), folder)
    endless = {"(a+)+$" * 20: 4, "q_proj": 9}
    change_json(folder / ADAPTER_CONFIG, rank_pattern=endless, target_modules="(.*)*q_proj(.*)*")
    assert defects(folder) == set()
