"""``check`` accuses no folder that a usual loader loads, and says of the rest what is true."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tests.helpers.saved_folders import (
    ADAPTERS,
    MODELS,
    change_json,
    defects,
    llama,
    save_adapter,
    save_model,
)

import canonical_saver
from saver_conformance.cases.families import custom
from saver_conformance.folder_check.audit import audit
from saver_conformance.reports.audit_text import describe
from saver_conformance.workload import custom_model

ROOT = Path(__file__).parents[3]
INDEX = "model.safetensors.index.json"


def notes(folder):
    return "\n".join(remark.text for remark in audit(folder).remarks)


@pytest.fixture
def whole(tmp_path):
    save_model(tmp_path / "whole")
    return tmp_path / "whole"


@pytest.fixture
def sharded(tmp_path):
    save_model(tmp_path / "sharded", max_shard_size="20KB")
    return tmp_path / "sharded"


@pytest.mark.parametrize("name", ADAPTERS)
def test_check_of_a_plain_peft_save_finds_no_defect(tmp_path, name):
    save_adapter(tmp_path, name)
    assert defects(tmp_path) == set()


@pytest.mark.parametrize("name", MODELS)
def test_check_of_a_model_without_a_tokenizer_finds_no_defect(tmp_path, name):
    MODELS[name]().save_pretrained(tmp_path / "hf")
    canonical_saver.save_model(MODELS[name](), tmp_path / "canonical")
    assert defects(tmp_path / "hf") == set()
    assert defects(tmp_path / "canonical") == set()


def test_check_of_a_model_with_a_processor_finds_no_defect(tmp_path):
    canonical_saver.save_model(
        MODELS["vit"](), tmp_path, tokenizer=transformers.ViTImageProcessor()
    )
    assert (tmp_path / "preprocessor_config.json").is_file()
    assert defects(tmp_path) == set()


@pytest.mark.parametrize("layout", ["safetensors", "torch", "dcp"])
@pytest.mark.parametrize("limit", [None, 20_000])
def test_check_of_each_format_of_the_reference_finds_no_defect(tmp_path, layout, limit):
    canonical_saver.save_model(llama(), tmp_path, format=layout, max_shard_size=limit)
    assert defects(tmp_path) == set()
    assert bool(notes(tmp_path)) == (layout != "safetensors")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("vocab.txt", "[PAD]\n[UNK]"),
        ("tokenizer.model", "\n\x07"),
        ("spiece.model", "\n\x07"),
        ("tekken.json", "{}"),
        ("cl100k.tiktoken", "IQ== 0"),
        ("preprocessor_config.json", "{}"),
        ("tokenizer_config.json", "{}"),
        ("tokenizer.json", "{}"),
    ],
)
def test_check_asks_for_no_kind_of_tokenizer(tmp_path, name, content):
    llama().save_pretrained(tmp_path)
    (tmp_path / name).write_text(content)
    assert defects(tmp_path) == set()


@pytest.mark.parametrize("with_default", [True, False])
def test_check_of_named_adapters_finds_no_defect(tmp_path, with_default):
    model = get_peft_model(llama(), LoraConfig(r=4, target_modules=["q_proj"]), "style")
    model.add_adapter("tone", LoraConfig(r=2, target_modules=["v_proj"]))
    if with_default:
        model.add_adapter("default", LoraConfig(r=8, target_modules=["o_proj"]))
    model.save_pretrained(tmp_path)
    assert (tmp_path / "adapter_config.json").exists() == with_default
    assert defects(tmp_path) == set()
    change_json(tmp_path / "tone" / "adapter_config.json", r=3)
    findings = audit(tmp_path).clauses["ADAPTER-003"].findings
    assert {finding.file for finding in findings} == {"tone/adapter_model.safetensors"}


def test_check_of_an_adapter_beside_a_whole_model_finds_no_defect(tmp_path):
    save_model(tmp_path)
    save_adapter(tmp_path)
    assert defects(tmp_path) == set()
    assert "transformers loads it on top" in notes(tmp_path)


@pytest.mark.parametrize(
    "pattern", ["model-{:06d}-of-{:06d}.safetensors", "part{}of{}.safetensors"]
)
def test_check_takes_shards_by_the_names_in_the_index(sharded, pattern):
    index = json.loads((sharded / INDEX).read_text())
    old = sorted(set(index["weight_map"].values()))
    new = {name: pattern.format(number, len(old)) for number, name in enumerate(old, 1)}
    for name in old:
        (sharded / name).rename(sharded / new[name])
    change_json(
        sharded / INDEX,
        weight_map={tensor: new[name] for tensor, name in index["weight_map"].items()},
    )
    assert defects(sharded) == set()
    (sharded / new[old[0]]).write_bytes(b"\0")
    assert "FORMAT-001" in defects(sharded)


def make_mlx(folder, *, quantized):
    """What mlx-lm converts: an index even for a single file, and packed weights."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    if quantized:
        for name in [name for name in tensors if name.endswith("proj.weight")]:
            rows, columns = tensors[name].shape
            tensors[name] = torch.zeros(rows, columns // 8, dtype=torch.uint32)
            for part in ("scales", "biases"):
                tensors[name.replace("weight", part)] = torch.zeros(rows, 1)
        quantization = {"group_size": 32, "bits": 4}
        change_json(
            folder / "config.json", quantization=quantization, quantization_config=quantization
        )
    save_file(tensors, path, metadata={"format": "mlx"})
    size = sum(tensor.nbytes for tensor in tensors.values())
    index = {
        "metadata": {"total_size": size, "total_parameters": 12345},
        "weight_map": dict.fromkeys(sorted(tensors), path.name),
    }
    (folder / INDEX).write_text(json.dumps(index))


@pytest.mark.parametrize("quantized", [False, True])
def test_check_of_an_mlx_folder_finds_no_defect(whole, quantized):
    make_mlx(whole, quantized=quantized)
    assert defects(whole) == set()


def test_check_of_an_mlx_adapter_finds_no_defect(tmp_path):
    save_file(
        {"model.layers.0.q_proj.lora_a": torch.zeros(4, 4)}, tmp_path / "adapters.safetensors"
    )
    shutil.copy(tmp_path / "adapters.safetensors", tmp_path / "0000100_adapters.safetensors")
    config = {"fine_tune_type": "lora", "lora_parameters": {"rank": 8}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    assert defects(tmp_path) == set()


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer_config.json"])
def test_check_reads_the_constants_that_python_writes(whole, name, value):
    change_json(whole / name, time_step_limit=[0.0, value])
    assert defects(whole) == set()


def write_pickles(folder):
    torch.save({"a": torch.zeros(1)}, folder / "pytorch_model.bin")


def write_pickled_shards(folder):
    names = [f"pytorch_model-0000{number}-of-00002.bin" for number in (1, 2)]
    for name in names:
        torch.save({"a": torch.zeros(1)}, folder / name)
    index = {"metadata": {}, "weight_map": {"a": names[0], "b": names[1]}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def write_files(*names):
    def write(folder):
        for name in names:
            (folder / name).parent.mkdir(exist_ok=True, parents=True)
            (folder / name).write_bytes(b"not looked at")

    return write


OTHER_FORMATS = {
    "pickle": write_pickles,
    "pickled shards": write_pickled_shards,
    "gguf": write_files("model-q4_0.gguf"),
    "original": write_files("original/consolidated.00.pth", "original/params.json"),
    "tensorflow": write_files("tf_model.h5"),
    "flax": write_files("flax_model.msgpack"),
    "onnx": write_files("onnx/model.onnx", "onnx/model_quantized.onnx"),
    "deepspeed": write_files(
        "global_step5/mp_rank_00_model_states.pt", "latest", "zero_to_fp32.py"
    ),
    "fsdp": write_files("pytorch_model_fsdp_0/.metadata", "pytorch_model_fsdp_0/__0_0.distcp"),
    "consolidated": write_files("consolidated.safetensors", "params.json"),
}


@pytest.mark.parametrize("kind", OTHER_FORMATS)
def test_check_of_weights_in_another_format_says_that_they_are_not_read(whole, kind):
    OTHER_FORMATS[kind](whole)
    assert defects(whole) == set()
    (whole / "model.safetensors").unlink()
    assert defects(whole) == set()
    assert notes(whole)
    assert "no weights were read" in list(describe(audit(whole)))[-1]


def test_check_of_a_trainers_checkpoint_finds_no_defect(tmp_path):
    data = [{"input_ids": [1, 2, 3], "labels": [1, 2, 3]}] * 4
    options = {"max_steps": 1, "save_steps": 1, "use_cpu": True, "report_to": []}
    arguments = transformers.TrainingArguments(tmp_path, disable_tqdm=True, **options)
    transformers.Trainer(model=llama(), args=arguments, train_dataset=data).train()
    assert (tmp_path / "checkpoint-1" / "optimizer.pt").is_file()
    assert defects(tmp_path / "checkpoint-1") == set()


def test_check_of_a_pipeline_looks_at_its_parts(tmp_path):
    (tmp_path / "model_index.json").write_text("{}")
    save_model(tmp_path / "text_encoder")
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text('{"_class_name": "UNet2DConditionModel"}')
    weights = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({"conv.weight": torch.zeros(2)}, weights)
    assert defects(tmp_path) == set()
    weights.write_bytes(weights.read_bytes()[:-1])
    (finding,) = audit(tmp_path).clauses["FORMAT-001"].findings
    assert finding.file == "unet/diffusion_pytorch_model.safetensors"


def test_check_of_a_sentence_transformer_looks_at_the_model_and_names_the_rest(tmp_path):
    MODELS["bert"]().save_pretrained(tmp_path)
    (tmp_path / "modules.json").write_text("[]")
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text("{}")
    (tmp_path / "2_Dense").mkdir()
    save_file({"linear.weight": torch.zeros(2, 2)}, tmp_path / "2_Dense" / "model.safetensors")
    assert defects(tmp_path) == set()
    assert [remark.file for remark in audit(tmp_path).remarks] == ["2_Dense"]


@pytest.mark.parametrize("cls", [torch.nn.Linear, torch.nn.Bilinear])
def test_check_of_a_plain_module_asks_for_no_configuration(tmp_path, cls):
    module = torch.nn.ModuleDict({"module": cls(2, 2, *([2] if cls is torch.nn.Bilinear else []))})
    canonical_saver.save_model(module, tmp_path)
    assert defects(tmp_path) == set()


def test_check_of_layers_that_are_called_like_wrappers_finds_no_defect(tmp_path):
    layers = ("module", "_orig_mod", "base_layer", "lora_A", "default", "modules_to_save")
    module = torch.nn.ModuleDict({name: torch.nn.Linear(2, 2) for name in layers})
    canonical_saver.save_model(module, tmp_path / "whole")
    assert defects(tmp_path / "whole") == set()
    targets = [name for name in layers if name not in ("base_layer", "lora_A")]
    adapted = get_peft_model(module, LoraConfig(r=2, target_modules=targets))
    adapted.save_pretrained(tmp_path / "adapter")
    assert defects(tmp_path / "adapter") == set()


@pytest.mark.parametrize("mode", ["full-single", "lora-single"])
def test_check_of_a_registered_class_takes_its_names_as_they_are(tmp_path, mode):
    # Its layers are called like parts of PEFT and of wrappers, and no code lies beside it.
    config = custom_model.CustomConfig(vocab_size=64, hidden_size=32)
    model = custom_model.CustomForCausalLM(config)
    if mode == "lora-single":
        model = get_peft_model(model, LoraConfig(r=4, target_modules=list(custom.LAYERS)))
    model.save_pretrained(tmp_path)
    assert defects(tmp_path) == set()


def test_check_of_shards_in_another_folder_says_that_they_were_not_looked_at(sharded):
    index = json.loads((sharded / INDEX).read_text())
    (sharded / "parts").mkdir()
    gone = sorted(set(index["weight_map"].values()))[0]
    (sharded / gone).rename(sharded / "parts" / gone)
    weight_map = {
        name: f"parts/{file}" if file == gone else file
        for name, file in index["weight_map"].items()
    }
    change_json(sharded / INDEX, weight_map=weight_map)
    assert defects(sharded) == set()
    assert "another folder" in notes(sharded)


def test_check_of_a_model_with_code_of_its_own_takes_its_names_as_they_are(whole):
    change_json(whole / "config.json", auto_map={"AutoModelForCausalLM": "modeling.Model"})
    tensors = load_file(whole / "model.safetensors")
    names = {name: f"module.{name.replace('q_proj', 'q_proj.base_layer')}" for name in tensors}
    renamed = {names[name]: tensor for name, tensor in tensors.items()}
    save_file(renamed, whole / "model.safetensors", metadata={"format": "pt"})
    assert defects(whole) == set()


def test_check_of_a_variant_says_that_a_loader_has_to_be_asked_for_it(whole):
    (whole / "model.safetensors").rename(whole / "model.fp16.safetensors")
    assert defects(whole) == set()
    assert "variant" in notes(whole)


EXAMPLES = {
    "trainer.py": ("", "checkpoint-1/canonical/model", "checkpoint-2/canonical/model"),
    "accelerate_loop.py": ("",),
    "fsdp_loop.py": ("",),
}


@pytest.mark.parametrize("example", EXAMPLES)
def test_check_of_what_the_examples_save_finds_no_defect(tmp_path, example):
    options = [
        "--standalone",
        "--nproc-per-node",
        "1",
        f"examples/{example}",
        str(tmp_path / "out"),
    ]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "ACCELERATE_USE_CPU": "true",
    }
    command = [sys.executable, "-m", "torch.distributed.run", *options]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    for folder in EXAMPLES[example]:
        assert defects(tmp_path / "out" / folder) == set()
