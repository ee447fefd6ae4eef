"""What is added for readers of other versions, which transformers 5 reads as nothing new."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from fixtures.portable.save import SIZES, THETA, logits, models, trained
from safetensors.torch import load_file, save_file
from tests.helpers import models as tiny
from tests.helpers import worlds
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from canonical_saver import RequestError, prove, save_model, save_trained_model
from canonical_saver.callback import CanonicalSaveCallback
from canonical_saver.publishing.portable import config_keys, tokenizer_keys
from saver_conformance.workload.tokenizer import make_tokenizer

CHAT = [{"role": "user", "content": "w1 w2"}]
NAMES = ("config.json", "generation_config.json", "tokenizer_config.json", "chat_template.jinja")


def read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


def read_config(folder: Path) -> dict[str, Any]:
    found = AutoConfig.from_pretrained(folder).to_dict()
    assert found.pop("_name_or_path") == str(folder)
    return dict(found)


def test_configuration_is_read_twice_where_all_settings_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = trained(models()["llama"]())
    kind = type(model.config)
    seen: list[str] = []
    usual = kind.from_dict.__func__

    def counted(cls: type[Any], values: dict[str, Any], **named: Any) -> Any:
        seen.append(json.dumps(values, sort_keys=True))
        return usual(cls, values, **named)

    monkeypatch.setattr(kind, "from_dict", classmethod(counted))
    save_model(model, tmp_path)
    assert len(seen) == 2  # as it is, and with all that is added


PUBLISHED = {
    "qwen3_moe": {"max_window_layers": 2},
    "qwen3_moe, experts only": {"max_window_layers": 2},
    "deepseek_v3": {"scoring_func": "sigmoid", "topk_method": "noaux_tc"},
    "gemma3": {"sliding_window_pattern": 2},
    "gemma3, published layers": {"sliding_window_pattern": 6},
    "llama, longrope": {"original_max_position_embeddings": 16},
}
"""Attributes that the class keeps, as it does with those of published checkpoints."""


@pytest.mark.parametrize("family", models())
def test_save_of_each_family_reads_as_without(family: str, tmp_path: Path) -> None:
    model = trained(models()[family]())
    report = save_model(model, tmp_path / "portable")
    save_model(model, tmp_path / "plain", portable=False)
    kinds = [read_config(tmp_path / name) for name in ("portable", "plain")]
    # Not every version's deepseek_v3 claims such layers.
    unclaimed = {"num_nextn_predict_layers": 0} if "num_nextn_predict_layers" in kinds[1] else {}
    assert kinds[0] == kinds[1] | unclaimed | PUBLISHED.get(family, {})
    assert any("torch_dtype" in line for line in report.portability)
    for weights in (tmp_path / "plain").glob("*.safetensors"):
        assert weights.read_bytes() == (tmp_path / "portable" / weights.name).read_bytes()


@pytest.mark.parametrize("family", [*PUBLISHED, "llama, yarn", "gpt_oss", "phi3"])
def test_save_gives_the_same_logits_as_without(family: str, tmp_path: Path) -> None:
    model = trained(models()[family]())
    expected = logits(model)
    save_model(model, tmp_path)
    found = logits(AutoModelForCausalLM.from_pretrained(tmp_path, dtype="float32").eval())
    assert expected is not None
    assert found is not None
    assert torch.equal(found, expected)


OLD = {
    "llama": {"rope_theta": THETA, "torch_dtype": "float32"},
    "qwen3_moe": {"rope_theta": THETA, "num_experts": 4},
    "llava": {},
    "gemma3": {"rope_theta": THETA, "rope_local_base_freq": 3_000.0},
    "modernbert": {"global_rope_theta": THETA, "local_rope_theta": 5_000.0},
    "gpt_neox": {"rotary_emb_base": THETA, "rotary_pct": 0.5},
    "glm": {"rope_theta": THETA, "partial_rotary_factor": 0.5},
    "llama, linear": {"rope_theta": THETA, "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
}


@pytest.mark.parametrize("name", OLD)
def test_save_has_settings_under_old_names(name: str, tmp_path: Path) -> None:
    wanted = dict(OLD[name])
    if name == "modernbert":
        wanted["global_rope_theta"] = 70_000.0
    save_model(models()[name](), tmp_path)
    found = read(tmp_path / "config.json")
    assert {key: found.get(key) for key in wanted} == wanted
    if name == "llava":
        assert found["text_config"]["rope_theta"] == THETA


def test_save_with_the_default_theta_writes_it(tmp_path: Path) -> None:
    save_model(tiny.llama(), tmp_path)
    assert read(tmp_path / "config.json")["rope_theta"] == 10_000.0


def test_save_leaves_out_what_the_class_would_keep_and_says_so(tmp_path: Path) -> None:
    rope = {"rope_type": "default", "rope_theta": THETA, "partial_rotary_factor": 0.5}
    config = transformers.Phi3Config(**SIZES, rope_parameters=rope)
    report = save_model(transformers.Phi3ForCausalLM(config), tmp_path)
    found = read(tmp_path / "config.json")
    assert "partial_rotary_factor" not in found
    assert found["rope_theta"] == THETA
    assert any("is without partial_rotary_factor" in line for line in report.portability)


def test_save_not_portable_has_the_files_of_save_pretrained(tmp_path: Path) -> None:
    model, tokenizer = tiny.llama(), make_tokenizer(67, chat=True, added=("<a>",))
    model.save_pretrained(tmp_path / "usual")
    tokenizer.save_pretrained(tmp_path / "usual")
    report = save_model(model, tmp_path / "own", tokenizer=tokenizer, portable=False)
    assert report.portability == ()
    for name in (*NAMES, "tokenizer.json", "model.safetensors"):
        assert (tmp_path / "own" / name).read_bytes() == (tmp_path / "usual" / name).read_bytes()


def test_cfg_and_callback_pass_the_option_on(tmp_path: Path) -> None:
    save_trained_model({"output_dir": tmp_path, "save_portable": False}, None, tiny.llama())
    assert "rope_theta" not in read(tmp_path / "config.json")
    assert CanonicalSaveCallback(portable=False)._cfg["save_portable"] is False
    with pytest.raises(RequestError, match="save_portable: expected true or false, found 'no'"):
        save_trained_model({"output_dir": tmp_path, "save_portable": "no"}, None, tiny.llama())


def several() -> Any:
    tokenizer = make_tokenizer(67, chat=True)
    tokenizer.chat_template = {"default": "{{ messages }}", "tool_use": "T{{ messages }}"}
    return tokenizer


def named() -> Any:
    backend = make_tokenizer(67, chat=False).backend_tokenizer
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", extra_special_tokens={"image_token": "<img>"}
    )


TOKENIZERS = {
    "plain": lambda: make_tokenizer(67, chat=False),
    "chat": lambda: make_tokenizer(67, chat=True, added=("<a>", "<b>")),
    "several templates": several,
    "named tokens": named,
}


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_tokenizer_reads_as_without(kind: str, tmp_path: Path) -> None:
    tokenizer: Any = TOKENIZERS[kind]()
    found = []
    for portable in (True, False):
        folder = tmp_path / str(portable)
        save_model(tiny.llama(), folder, tokenizer=tokenizer, portable=portable)
        read_back: Any = AutoTokenizer.from_pretrained(folder)
        template = read_back.chat_template
        found.append(
            {
                "class": type(read_back),
                "ids": read_back("w1 <a> w2 <img>")["input_ids"],
                "special": (read_back.special_tokens_map, read_back.all_special_ids),
                "extra": (read_back.extra_special_tokens, getattr(read_back, "image_token", None)),
                "template": template,
                "prompt": template and read_back.apply_chat_template(CHAT, tokenize=False),
                "backend": read_back.backend_tokenizer.to_str(),
            }
        )
    assert found[0] == found[1]
    assert read(tmp_path / "True" / "tokenizer_config.json")["tokenizer_class"] == (
        "PreTrainedTokenizerFast"
    )


def test_tokenizer_keys_take_the_place_of_a_list_that_others_refuse() -> None:
    config = {"tokenizer_class": "Own", "extra_special_tokens": ["<a>"], "eos_token": "</s>"}
    made, added = tokenizer_keys.portable(config, {"default": "{{ x }}"})
    assert made == {
        "tokenizer_class": "Own",
        "additional_special_tokens": ["<a>"],
        "chat_template": "{{ x }}",
        "eos_token": "</s>",
    }
    assert [key.place for key in added] == ["additional_special_tokens", "chat_template"]
    assert tokenizer_keys.portable(made, {"default": "{{ x }}"})[0] == made


def test_candidates_name_nothing_that_is_there() -> None:
    config = {
        "dtype": "float32",
        "torch_dtype": "float32",
        "rope_theta": 1.0,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1.0},
        "quantization_config": {"dtype": "int8"},
    }
    assert list(config_keys.candidates(config)) == []


def test_save_of_an_adapter_names_what_servers_refuse(tmp_path: Path) -> None:
    plain = save_model(tiny.peft(), tmp_path / "plain")
    assert not any("merge" in line for line in plain.portability)
    report = save_model(tiny.peft(use_dora=True, modules_to_save=["lm_head"]), tmp_path / "dora")
    (line,) = (line for line in report.portability if "merge" in line)
    assert "DoRA" in line
    assert "modules_to_save" in line


def deepseek() -> Any:
    torch.manual_seed(3)
    config = transformers.DeepseekV3Config(
        vocab_size=67,
        hidden_size=16,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        moe_intermediate_size=9,
        num_experts_per_tok=2,
        kv_lora_rank=8,
        q_lora_rank=8,
        qk_rope_head_dim=4,
        qk_nope_head_dim=4,
        v_head_dim=8,
        n_routed_experts=4,
        n_group=2,
        topk_group=1,
        first_k_dense_replace=1,
        num_nextn_predict_layers=1,
    )
    return transformers.DeepseekV3ForCausalLM(config)


EXTRA = {
    "model.layers.2.eh_proj.weight": torch.arange(512, dtype=torch.bfloat16).view(16, 32),
    "model.layers.2.enorm.weight": torch.linspace(0, 1, 16),
    "mtp.fc.weight": torch.arange(8, dtype=torch.int8),
}


def base_with_extra_layers(folder: Path, *, sharded: bool = False) -> Path:
    """A checkpoint with layers that predict further tokens, which no class loads."""
    model = deepseek()
    model.save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    if not sharded:
        save_file(tensors | EXTRA, folder / "model.safetensors", {"format": "pt"})
        return folder
    (folder / "model.safetensors").rename(folder / "one.safetensors")
    save_file(EXTRA, folder / "two.safetensors", {"format": "pt"})
    weight_map = dict.fromkeys(tensors, "one.safetensors") | dict.fromkeys(EXTRA, "two.safetensors")
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def stored(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in folder.glob("*.safetensors"):
        found |= load_file(path)
    return found


def assert_carried(folder: Path) -> None:
    tensors = stored(folder)
    for name, tensor in EXTRA.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)
    assert read(folder / "config.json")["num_nextn_predict_layers"] == 1


@pytest.mark.parametrize("sharded", [False, True])
def test_tensors_of_the_base_that_no_class_loads_are_carried_over(
    sharded: bool, tmp_path: Path
) -> None:
    base = base_with_extra_layers(tmp_path / "base", sharded=sharded)
    model = AutoModelForCausalLM.from_pretrained(base)
    for number, options in enumerate(({}, {"max_shard_size": "20KB"}, {"dtype": "bfloat16"})):
        folder = tmp_path / str(number)
        report = save_model(model, folder, verify="full", **options)
        (warning,) = report.warnings
        assert all(name in warning for name in EXTRA)
        assert_carried(folder)
        if number == 1:
            index = read(folder / "model.safetensors.index.json")
            assert index["weight_map"].keys() == stored(folder).keys()
            assert len(set(index["weight_map"].values())) > 1
    assert prove(model, tmp_path / "0").ok
    saved = torch_format(model, tmp_path / "torch")
    assert all(torch.equal(saved[name], tensor) for name, tensor in EXTRA.items())
    loaded: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "0")
    own = model.state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in loaded.state_dict().items())


def torch_format(model: Any, folder: Path) -> dict[str, torch.Tensor]:
    save_model(model, folder, format="torch")
    return dict(torch.load(folder / "pytorch_model.bin", weights_only=True))


def _save_on_a_rank(rank: int, base: str, output: str) -> tuple[str, ...]:
    model = AutoModelForCausalLM.from_pretrained(base)
    if rank:
        model.config._name_or_path = ""  # only rank 0 has the base at hand
    return save_model(model, output, max_shard_size="20KB").warnings


def test_tensors_of_the_base_are_written_once_by_many_ranks(tmp_path: Path) -> None:
    base = base_with_extra_layers(tmp_path / "base")
    told = worlds.run(2, _save_on_a_rank, str(base), str(tmp_path / "out"))
    assert told[0] == told[1]
    assert_carried(tmp_path / "out")


def without_the_base(base: Path) -> None:
    for path in base.iterdir():
        path.unlink()


def of_another_depth(base: Path) -> None:
    config = read(base / "config.json")
    (base / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 4}))


def of_another_kind(base: Path) -> None:
    config = read(base / "config.json")
    (base / "config.json").write_text(json.dumps(config | {"model_type": "llama"}))


def of_another_vocabulary(base: Path) -> None:
    config = read(base / "config.json")
    (base / "config.json").write_text(json.dumps(config | {"vocab_size": 68}))


def quantized(base: Path) -> None:
    config = read(base / "config.json")
    scheme = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    (base / "config.json").write_text(json.dumps(config | {"quantization_config": scheme}))


def damaged(base: Path) -> None:
    (base / "model.safetensors").unlink()  # the model in memory may be a map of it
    (base / "model.safetensors").write_bytes(b"\x00" * 30)


@pytest.mark.parametrize(
    "change",
    [
        without_the_base,
        of_another_depth,
        of_another_kind,
        of_another_vocabulary,
        quantized,
        damaged,
    ],
)
def test_config_claims_no_layers_whose_base_is_not_at_hand(change: Any, tmp_path: Path) -> None:
    base = base_with_extra_layers(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(base)
    change(base)
    report = save_model(model, tmp_path / "out")
    assert report.warnings == ()
    assert read(tmp_path / "out" / "config.json")["num_nextn_predict_layers"] == 0
    assert any("num_nextn_predict_layers" in line for line in report.portability)
    assert not stored(tmp_path / "out").keys() & EXTRA.keys()
    assert prove(model, tmp_path / "out").ok
    assert model.config.num_nextn_predict_layers == 1


def test_save_not_portable_carries_nothing_and_keeps_the_claim(tmp_path: Path) -> None:
    base = base_with_extra_layers(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(base)
    report = save_model(model, tmp_path / "out", portable=False)
    assert report.warnings == ()
    assert read(tmp_path / "out" / "config.json")["num_nextn_predict_layers"] == 1
    assert not stored(tmp_path / "out").keys() & EXTRA.keys()
