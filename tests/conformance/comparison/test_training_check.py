"""`check DIR --base BASE`: did a fine-tune get in?"""

import json
import shutil

import pytest
import torch
from tests.helpers.saved_folders import MODELS, change_tensors, llama
from tests.helpers.trained_folders import (
    remarks,
    save_adapter,
    save_base,
    set_config,
    wrong,
)

from saver_conformance.comparison.training_check import check_training
from saver_conformance.comparison.words import answer
from saver_conformance.errors import ComparisonError

MODEL = "model.safetensors"
QUERY = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture
def folders(tmp_path):
    """A base and a model trained from it, in which every floating tensor changed."""
    base, trained = tmp_path / "base", tmp_path / "trained"
    save_base(base)
    torch.manual_seed(2)
    model = llama()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    model.save_pretrained(trained)
    return trained, base


def test_check_of_a_trained_model_is_fine(folders):
    check = check_training(*folders)
    assert check.is_fine
    assert answer(check) == "yes, 21 of 21 tensors changed"


def test_check_measures_share_and_norm(folders):
    trained, base = folders

    def change(tensors):
        tensors[QUERY][:8] += 0.5
        return tensors

    shutil.copy(base / MODEL, trained / MODEL)
    change_tensors(trained / MODEL, change)
    (part,) = check_training(trained, base).parts
    (name,) = part.model.changed
    found = part.model.changed[name]
    assert name == QUERY
    assert found.share == 0.25
    assert found.norm == pytest.approx(0.5 * 256**0.5, rel=1e-5)
    assert found.largest == pytest.approx(0.5, rel=1e-5)
    assert "nothing changed in layers 1" in remarks(trained, base)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shards", ["1GB", "20KB"])
def test_check_of_the_base_itself_names_an_untouched_copy(dtype, shards, tmp_path):
    base, copy = tmp_path / "base", tmp_path / "copy"
    save_base(base)
    llama().to(dtype or torch.float32).save_pretrained(copy, max_shard_size=shards)
    assert "untouched copy of the base: all 21 tensors" in wrong(copy, base)


def test_check_of_a_frozen_base_with_a_new_head_is_fine(tmp_path):
    save_base(tmp_path / "base", MODELS["base"])
    save_base(tmp_path / "head", MODELS["reward"])
    assert wrong(tmp_path / "head", tmp_path / "base") == ""
    assert "score.weight" in remarks(tmp_path / "head", tmp_path / "base")


@pytest.mark.parametrize(
    "extra",
    ["model.layers.2.mlp.down_proj.weight", "mtp.layers.0.fc.weight"],
    ids=["layer-beyond", "mtp"],
)
def test_check_of_dropped_prediction_layers_names_them(extra, folders):
    trained, base = folders
    change_tensors(base / MODEL, lambda tensors: tensors | {extra: torch.randn(36, 32)})
    set_config(base, num_nextn_predict_layers=1)
    set_config(trained, num_nextn_predict_layers=1)
    text = wrong(trained, base)
    assert extra in text
    assert "predict further tokens (MTP)" in text


def test_check_of_a_dropped_tensor_names_it(folders):
    trained, base = folders
    change_tensors(
        trained / MODEL, lambda tensors: {n: t for n, t in tensors.items() if n != QUERY}
    )
    assert f"1 tensor of the base absent: layers 0; {QUERY}" in wrong(trained, base)


def _fuse_queries(tensors):
    for layer in ("model.layers.0.self_attn", "model.layers.1.self_attn"):
        parts = [tensors.pop(f"{layer}.{name}_proj.weight") for name in "qkv"]
        tensors[f"{layer}.qkv_proj.weight"] = torch.cat(parts)
    return tensors


def _move_parts(tensors):
    return {
        name.replace("model.layers", "model.language_model.layers"): tensor
        for name, tensor in tensors.items()
    }


@pytest.mark.parametrize("change", [_fuse_queries, _move_parts])
def test_check_of_tensors_stored_in_another_way_is_a_remark(change, folders):
    trained, base = folders
    change_tensors(trained / MODEL, change)
    assert wrong(trained, base) == ""
    assert remarks(trained, base)


def test_check_of_fewer_layers_by_configuration_is_a_remark(folders):
    trained, base = folders

    def change(tensors):
        return {name: tensor for name, tensor in tensors.items() if ".layers.1." not in name}

    change_tensors(trained / MODEL, change)
    set_config(trained, num_hidden_layers=1)
    assert wrong(trained, base) == ""
    assert "9 tensors of the base absent" in remarks(trained, base)


def test_check_of_a_tied_head_that_the_base_saved_twice_is_fine(folders):
    trained, base = folders

    def tie(tensors):
        return tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}

    change_tensors(base / MODEL, tie)
    change_tensors(
        trained / MODEL, lambda tensors: {n: t for n, t in tensors.items() if n != "lm_head.weight"}
    )
    for folder in folders:
        set_config(folder, tie_word_embeddings=True)
    assert wrong(trained, base) == ""
    assert "tied to another one: lm_head.weight" in remarks(trained, base)


def _zero(tensor):
    return torch.zeros_like(tensor)


def _zero_rows(tensor):
    return torch.cat([tensor[:16], torch.zeros_like(tensor[16:])])


def _repeat_rows(tensor):
    return torch.cat([tensor[:16], tensor[:16]])


def _repeat_one_of_four(tensor):
    return torch.cat([tensor[:24], tensor[8:16]])


def _repeat_columns(tensor):
    return torch.cat([tensor[:, :16], tensor[:, :16]], 1)


def _zero_columns(tensor):
    return torch.cat([tensor[:, :16], torch.zeros_like(tensor[:, 16:])], 1)


def _flat(tensor):
    return tensor.flatten()


def _empty(tensor):
    return tensor[:0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_zero, "all zero"),
        (_zero_rows, "rank 1 of 2 (rows) is all zero"),
        (_zero_columns, "rank 1 of 2 (columns) is all zero"),
        (_repeat_rows, "rank 1 of 2 (rows) repeats that of rank 0"),
        (_repeat_one_of_four, "rank 3 of 4 (rows) repeats that of rank 1"),
        (_repeat_columns, "rank 1 of 2 (columns) repeats that of rank 0"),
        (_flat, "lost its shape"),
        (_empty, "lost its shape"),
    ],
)
def test_check_of_a_lost_slice_names_it(change, words, folders):
    trained, base = folders
    change_tensors(
        trained / MODEL, lambda tensors: tensors | {QUERY: change(tensors[QUERY]).contiguous()}
    )
    text = wrong(trained, base)
    assert words in text
    assert QUERY in text


@pytest.mark.parametrize("change", [_zero, _zero_rows, _repeat_rows, _repeat_columns])
def test_check_of_what_the_base_repeats_is_fine(change, folders):
    trained, base = folders
    for path in (trained, base):
        change_tensors(
            path / MODEL, lambda tensors: tensors | {QUERY: change(tensors[QUERY]).contiguous()}
        )
    assert wrong(trained, base) == ""


def test_check_of_copied_embeddings_is_fine(folders):
    """New words often begin as copies of old ones."""
    trained, base = folders

    def change(tensors):
        embeddings = tensors["model.embed_tokens.weight"]
        embeddings[40], embeddings[41] = embeddings[3], embeddings[3]
        return tensors

    change_tensors(trained / MODEL, change)
    assert wrong(trained, base) == ""


def test_check_of_a_resized_vocabulary_is_a_remark(folders, tmp_path):
    _, base = folders
    save_base(tmp_path / "resized", lambda: llama(vocab_size=72))
    text = remarks(tmp_path / "resized", base)
    assert "2 tensors resized: " in text


def test_check_names_a_quantized_base_and_does_not_judge(folders):
    trained, base = folders
    set_config(base, quantization_config={"quant_method": "gptq", "bits": 4})
    assert wrong(trained, base) == ""
    assert "the base is quantized (gptq)" in remarks(trained, base)


def test_check_of_names_with_another_first_part_compares_them(tmp_path):
    save_base(tmp_path / "base", MODELS["base"])
    save_base(tmp_path / "whole", llama)
    (part,) = check_training(tmp_path / "whole", tmp_path / "base").parts
    assert part.model.absent == ()
    assert part.model.new == ("lm_head.weight",)


@pytest.mark.parametrize("options", [{}, {"modules_to_save": ["lm_head"]}, {"use_dora": True}])
def test_check_of_an_adapter_of_the_base_is_fine(options, tmp_path):
    save_base(tmp_path / "base")
    save_adapter(tmp_path / "adapter", **options)
    check = check_training(tmp_path / "adapter", tmp_path / "base")
    assert check.is_fine
    assert answer(check).startswith("yes")


def test_check_of_an_adapter_in_pickle_is_fine(tmp_path):
    save_base(tmp_path / "base")
    save_adapter(tmp_path / "adapter")
    safe = tmp_path / "adapter" / "adapter_model.safetensors"
    from safetensors.torch import load_file

    torch.save(load_file(safe), tmp_path / "adapter" / "adapter_model.bin")
    safe.unlink()
    check = check_training(tmp_path / "adapter", tmp_path / "base")
    assert answer(check).startswith("yes")


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (lambda: llama(hidden_size=48), "of another shape than the base's"),
        (lambda: llama(num_hidden_layers=4), "4 modules in layers that the base does not have"),
        (MODELS["bert"], "none of its"),
    ],
)
def test_check_of_another_model_s_adapter_says_so(model, words, tmp_path):
    save_base(tmp_path / "base")
    targets = ["query"] if words == "none of its" else ["q_proj", "v_proj"]
    save_adapter(tmp_path / "adapter", model, target_modules=targets, task_type=None)
    assert words in wrong(tmp_path / "adapter", tmp_path / "base")


@pytest.mark.parametrize("all_of_them", [True, False])
def test_check_of_an_adapter_with_zeros_in_lora_b_tells(all_of_them, tmp_path):
    save_base(tmp_path / "base")
    save_adapter(tmp_path / "adapter")

    def change(tensors):
        for name, tensor in tensors.items():
            if "lora_B" in name and (all_of_them or ".layers.1." in name):
                tensor.zero_()
        return tensors

    change_tensors(tmp_path / "adapter" / "adapter_model.safetensors", change)
    folders = (tmp_path / "adapter", tmp_path / "base")
    assert ("every lora_B is zero" in wrong(*folders)) == all_of_them
    assert ("2 lora_Bs of 4 zero" in remarks(*folders)) != all_of_them


def test_check_of_an_adapter_with_a_repeated_slice_names_it(tmp_path):
    save_base(tmp_path / "base")
    save_adapter(tmp_path / "adapter")

    def change(tensors):
        name = next(name for name in tensors if "lora_A" in name)
        return tensors | {name: torch.cat([tensors[name][:2]] * 2)}

    change_tensors(tmp_path / "adapter" / "adapter_model.safetensors", change)
    assert "repeats that of rank 0" in wrong(tmp_path / "adapter", tmp_path / "base")


def test_check_of_a_base_without_weights_is_called_wrongly(folders, tmp_path):
    save_adapter(tmp_path / "adapter")
    with pytest.raises(ComparisonError, match="expected the weights of a whole model"):
        check_training(folders[0], tmp_path / "adapter")
    with pytest.raises(ComparisonError, match="expected one adapter, found 0"):
        check_training(*folders, folders[1])
    with pytest.raises(ComparisonError, match="expected a merged model"):
        check_training(tmp_path / "adapter", folders[1], tmp_path / "adapter")


def test_check_of_a_cut_off_shard_is_wrong(folders):
    trained, base = folders
    path = trained / MODEL
    path.write_bytes(path.read_bytes()[:-10])
    assert "cannot be read" in wrong(trained, base)


def test_check_of_nan_is_a_remark(folders):
    trained, base = folders

    def change(tensors):
        tensors[QUERY][0, 0] = float("nan")
        return tensors

    change_tensors(trained / MODEL, change)
    assert "NaN" in remarks(trained, base)


def test_check_without_torch(folders, tmp_path):
    """The process of the command imports neither torch nor numpy."""
    import subprocess
    import sys

    trained, base = folders
    code = (
        "import sys\nfrom saver_conformance.cli import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit as end:\n"
        "    assert not {'torch', 'numpy', 'transformers'} & set(sys.modules)\n"
        "    raise\n"
    )
    arguments = ("check", str(trained), "--base", str(base), "--json")
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["structure"]["clean"]
    assert found["training"]["answer"] == "yes, 21 of 21 tensors changed"
