"""`diff A B`: two folders by content."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from tests.helpers.saved_folders import (
    MODELS,
    change_json,
    change_tensors,
    llama,
    save_adapter,
    save_model,
)

from saver_conformance.cli import main
from saver_conformance.comparison.folder_diff import diff_folders
from saver_conformance.comparison.words import describe_diff
from saver_conformance.workload.tokenizer import make_tokenizer

MODEL = "model.safetensors"
NORM = "model.norm.weight"


def text_of(first, second, **options):
    """The report; what it says last fits the data."""
    diff = diff_folders(first, second, **options)
    lines = list(describe_diff(diff))
    assert (lines[-1] == "same") == diff.is_same
    return "\n".join(lines)


def save_pickle(source, folder, change=lambda tensors: tensors, **options):
    """Save the model in ``source`` as pytorch_model.bin."""
    shutil.copytree(source, folder)
    torch.save(change(load_file(folder / MODEL)), folder / "pytorch_model.bin", **options)
    (folder / MODEL).unlink()


@pytest.mark.parametrize("name", ["llama", "llama-tied", "gpt2", "t5", "mixtral"])
@pytest.mark.parametrize("size", ["3KB", "20KB"])
def test_diff_of_one_and_many_shards_is_same(name, size, tmp_path):
    for folder, options in (("one", {}), ("many", {"max_shard_size": size})):
        torch.manual_seed(0)
        save_model(tmp_path / folder, name, **options)
    assert text_of(tmp_path / "one", tmp_path / "many").endswith("same")


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors,
        lambda tensors: {n: torch.nn.Parameter(t) for n, t in tensors.items()},
        lambda tensors: {
            n: t.t().contiguous().t() if t.dim() == 2 else t for n, t in tensors.items()
        },
        lambda tensors: {n: torch.stack([t, t], -1)[..., 0] for n, t in tensors.items()},
    ],
    ids=["plain", "parameters", "transposed", "strided"],
)
def test_diff_with_the_torch_format_is_same(change, tmp_path):
    save_model(tmp_path / "safe")
    save_pickle(tmp_path / "safe", tmp_path / "pickle", change)
    assert text_of(tmp_path / "safe", tmp_path / "pickle").endswith("same")


def test_diff_with_a_tied_state_dict_is_same(tmp_path):
    save_model(tmp_path / "safe", "llama-tied")
    save_pickle(
        tmp_path / "safe", tmp_path / "pickle", lambda _: MODELS["llama-tied"]().state_dict()
    )
    text = text_of(tmp_path / "safe", tmp_path / "pickle")
    assert "tied to another tensor: lm_head.weight" in text
    assert text.endswith("same")


def test_diff_with_sharded_torch_format_is_same(tmp_path):
    save_model(tmp_path / "safe")
    shutil.copytree(tmp_path / "safe", tmp_path / "pickle")
    tensors = load_file(tmp_path / "safe" / MODEL)
    files = {name: f"pytorch_model-{len(name) % 2 + 1:05d}-of-00002.bin" for name in tensors}
    for file in set(files.values()):
        part = {name: tensor for name, tensor in tensors.items() if files[name] == file}
        torch.save(part, tmp_path / "pickle" / file)
    index = {"metadata": {}, "weight_map": files}
    (tmp_path / "pickle" / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    (tmp_path / "pickle" / MODEL).unlink()
    assert text_of(tmp_path / "safe", tmp_path / "pickle").endswith("same")


DTYPES = (
    torch.float64,
    torch.float32,
    torch.bfloat16,
    torch.float16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
    torch.uint16,
    torch.complex64,
)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_diff_of_one_flipped_bit_names_the_tensor_and_the_element(dtype, tmp_path):
    for name in ("first", "second", "pickle"):
        save_model(tmp_path / name)
    torch.manual_seed(3)
    value = (torch.rand(40, 50) * 3).to(dtype)
    other = value.clone()
    size = value.element_size()
    other.view(torch.uint8).view(-1)[1234 * size] ^= 1
    for name, tensor in (("first", value), ("second", other), ("pickle", value)):
        change_tensors(tmp_path / name / MODEL, lambda all_, tensor=tensor: all_ | {NORM: tensor})
    shutil.move(tmp_path / "pickle", tmp_path / "source")
    save_pickle(tmp_path / "source", tmp_path / "pickle")
    text = text_of(tmp_path / "first", tmp_path / "second")
    assert f"{NORM}: 1 of 2000 elements differ (1 bit), first element 1234" in text
    assert text_of(tmp_path / "first", tmp_path / "pickle").endswith("same")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_diff_of_a_cast_says_so(dtype, tmp_path):
    save_model(tmp_path / "first")
    save_model(tmp_path / "second")
    for way in (("first", "second"), ("second", "first")):
        first, second = (tmp_path / name for name in way)
        special = torch.tensor([0.0, -0.0, float("inf"), float("nan"), 1e-41, 3e38, 1.0])
        change_tensors(tmp_path / "first" / MODEL, lambda all_, s=special: all_ | {NORM: s})
        change_tensors(
            tmp_path / "second" / MODEL,
            lambda _: {n: t.to(dtype) for n, t in load_file(tmp_path / "first" / MODEL).items()},
        )
        text = text_of(first, second)
        assert text.count("equal after a cast") == 20 or text.count("equal after a cast") == 21
        assert text.endswith("differ")
        assert text_of(first, second, any_dtype=True).endswith("same")


def test_diff_of_values_in_another_dtype_measures_them(tmp_path):
    save_model(tmp_path / "first")
    save_model(tmp_path / "second")

    def change(tensors):
        half = {name: tensor.bfloat16() for name, tensor in tensors.items()}
        half[NORM][5] += 2
        return half

    change_tensors(tmp_path / "second" / MODEL, change)
    text = text_of(tmp_path / "first", tmp_path / "second", any_dtype=True)
    assert f"{NORM}: F32 and BF16, 1 of 32 elements differ, first element 5" in text
    assert "largest difference 2" in text


def test_diff_of_large_tensors_counts_all_and_measures_a_part(tmp_path):
    save_model(tmp_path / "first")
    save_model(tmp_path / "second")
    for name, value in (("first", 0.0), ("second", 0.5)):
        large = {NORM: torch.full((3000, 1000), value)}
        change_tensors(tmp_path / name / MODEL, lambda all_, large=large: all_ | large)
    path = tmp_path / "first", tmp_path / "second"
    (change,) = diff_folders(*path).parts[0].changed.values()
    assert change.differing == 3_000_000
    assert change.measured < 100_000
    assert change.norm == pytest.approx(0.5 * 3_000_000**0.5, rel=0.01)
    (change,) = diff_folders(*path, every=True).parts[0].changed.values()
    assert change.measured == 3_000_000
    assert change.norm == pytest.approx(0.5 * 3_000_000**0.5, rel=1e-6)


def test_diff_names_settings_and_words_that_differ(tmp_path):
    save_model(tmp_path / "first")
    save_model(tmp_path / "second")
    change_json(tmp_path / "second" / "config.json", rms_norm_eps=0.25, transformers_version="1")
    make_tokenizer(60, chat=True).save_pretrained(tmp_path / "second")
    (tmp_path / "second" / "chat_template.jinja").write_text("other")
    (tmp_path / "first" / "merges.txt").write_text("a b")
    text = text_of(tmp_path / "first", tmp_path / "second")
    assert "rms_norm_eps: 1e-06 in the first, 0.25 in the second" in text
    assert "tokenizer.json: " in text
    assert "model.vocab." in text
    assert "chat_template.jinja: 1 difference\n    the bytes differ" in text
    assert "merges.txt: 1 difference\n    only in the first folder" in text
    assert "transformers_version" not in text


def test_diff_of_what_wrote_them_is_same(tmp_path):
    save_model(tmp_path / "first")
    save_model(tmp_path / "second")
    plain = json.loads((tmp_path / "second" / "config.json").read_text())
    plain["torch_dtype"] = plain.pop("dtype")
    plain |= {"transformers_version": "4.0", "_name_or_path": "x"}
    (tmp_path / "second" / "config.json").write_text(json.dumps(plain, indent=8))
    (tmp_path / "second" / "README.md").write_text("a card")
    assert text_of(tmp_path / "first", tmp_path / "second").endswith("same")


def test_diff_names_absent_tensors_and_parts(tmp_path):
    save_model(tmp_path / "first")
    save_model(tmp_path / "second")
    save_adapter(tmp_path / "second" / "other")
    change_tensors(
        tmp_path / "second" / MODEL, lambda all_: {n: t for n, t in all_.items() if n != NORM}
    )
    text = text_of(tmp_path / "first", tmp_path / "second")
    assert f"only in the first: {NORM}" in text
    assert "only in the second: adapter other" in text


def test_diff_of_adapters_compares_them(tmp_path):
    save_adapter(tmp_path / "first")
    save_adapter(tmp_path / "second")
    assert text_of(tmp_path / "first", tmp_path / "first").endswith("same")
    change_json(tmp_path / "second" / "adapter_config.json", lora_alpha=99)
    assert "lora_alpha: 8 in the first, 99 in the second" in text_of(
        tmp_path / "first", tmp_path / "second"
    )


@pytest.mark.parametrize("legacy", [True, False])
def test_diff_of_pickles_that_are_not_read_is_never_same(legacy, tmp_path):
    save_model(tmp_path / "safe")
    options = {"_use_new_zipfile_serialization": False} if legacy else {}
    change = (lambda tensors: tensors) if legacy else (lambda tensors: [tensors])
    save_pickle(tmp_path / "safe", tmp_path / "pickle", change, **options)
    text = text_of(tmp_path / "pickle", tmp_path / "pickle")
    assert "not compared" in text
    assert text.endswith("differ")


@pytest.mark.parametrize(("same", "code"), [(True, 0), (False, 1)])
def test_diff_command_exits_by_the_answer(same, code, tmp_path, capsys):
    save_model(tmp_path / "first")
    save_model(tmp_path / "second")
    if not same:
        change_json(tmp_path / "second" / "config.json", rms_norm_eps=0.25)
    capsys.readouterr()
    for options in ([], ["--json"]):
        with pytest.raises(SystemExit) as end:
            main(["diff", str(tmp_path / "first"), str(tmp_path / "second"), *options])
        assert end.value.code == code
        out = capsys.readouterr()
        assert out.err == ""
    assert json.loads(out.out)["same"] == same


@pytest.mark.parametrize(
    "arguments",
    [
        ["diff", "first", "nowhere"],
        ["diff", "empty", "empty"],
        ["check", "first", "--adapter", "first"],
        ["check", "first", "--base", "empty"],
        ["check", "first", "--base", "first", "--adapter", "first"],
    ],
)
def test_commands_that_are_called_wrongly_exit_with_3(arguments, tmp_path, monkeypatch):
    save_model(tmp_path / "first")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 3


def test_check_command_of_an_untouched_copy_exits_with_1(tmp_path, capsys):
    llama().save_pretrained(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["check", str(tmp_path), "--base", str(tmp_path)])
    assert end.value.code == 1
    assert "untouched copy of the base" in capsys.readouterr().out
