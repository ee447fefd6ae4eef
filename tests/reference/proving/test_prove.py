"""What `prove` says of folders, on one process."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.helpers import damaged_folders as damaged
from tests.helpers import models

from canonical_saver import Proof, ProofError, RequestError, prove, proven, save_model

EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def proof_of(model: Any, folder: Path, **options: Any) -> Proof:
    """Prove a folder, and find out whether the words and the data agree."""
    found = prove(model, folder, **options)
    assert found.ok == (not found.findings())
    assert "\n" not in found.summary
    return found


def saved(model: Any, folder: Path, **options: Any) -> Path:
    save_model(model, folder, **options)
    return folder


def test_prove_tied_head_stored_twice_is_told_and_loads(tmp_path: Path) -> None:
    model = models.llama(tied=True)
    saved(model, tmp_path / "m")

    def twice(tensors: damaged.Tensors) -> None:
        tensors[HEAD] = tensors[EMBED].clone()

    damaged.rewritten(tmp_path / "m", tmp_path / "twice", twice)
    found = proof_of(model, tmp_path / "twice")
    assert found.tied_twice == (HEAD,)
    assert found.ok
    assert HEAD in found.summary

    def unlike(tensors: damaged.Tensors) -> None:
        tensors[HEAD] = tensors[EMBED].clone()
        tensors[HEAD][3, 4] += 1

    damaged.rewritten(tmp_path / "m", tmp_path / "unlike", unlike)
    found = proof_of(model, tmp_path / "unlike")
    assert [one.name for one in found.different] == [HEAD]


def test_prove_tied_head_alone_is_the_tied_tensor(tmp_path: Path) -> None:
    model = models.llama(tied=True)
    saved(model, tmp_path / "m")

    def renamed(tensors: damaged.Tensors) -> None:
        tensors[HEAD] = tensors.pop(EMBED)

    damaged.rewritten(tmp_path / "m", tmp_path / "renamed", renamed)
    assert HEAD in proof_of(model, tmp_path / "renamed").proven


def test_prove_fused_experts_in_either_form(tmp_path: Path) -> None:
    model = models.mixtral()
    saved(model, tmp_path / "hub")
    state = model.state_dict()
    hub = load_file(tmp_path / "hub" / "model.safetensors")
    fused = {name for name in state if name not in hub}
    assert fused, "this model has other names in memory than on the hub"
    shutil.copytree(tmp_path / "hub", tmp_path / "memory")
    save_file(state, tmp_path / "memory" / "model.safetensors", metadata={"format": "pt"})
    for name in ("hub", "memory"):
        assert proof_of(model, tmp_path / name).ok
    assert fused <= set(proof_of(model, tmp_path / "memory").proven)
    name = sorted(fused)[0]
    damaged.flip(tmp_path / "memory", tmp_path / "flipped", name, 9)
    (one,) = proof_of(model, tmp_path / "flipped").different
    assert (one.name, one.first) == (name, 9)


def test_prove_tensors_that_are_computed_for_the_hub(tmp_path: Path) -> None:
    model = models.turned()
    saved(model, tmp_path / "m")
    found = proof_of(model, tmp_path / "m")
    assert found.ok
    name = next(name for name in found.proven if "q_turned" in name)
    damaged.flip(tmp_path / "m", tmp_path / "flipped", name, 6)
    (one,) = proof_of(model, tmp_path / "flipped").different
    assert (one.name, one.first, one.count) == (name, 6, 1)


def test_prove_archives_with_shared_and_turned_tensors(tmp_path: Path) -> None:
    model = models.llama(tied=True)
    saved(model, tmp_path / "m", format="torch")
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    turned = "model.layers.0.self_attn.q_proj.weight"
    state[turned] = state[turned].t().contiguous().t()
    assert not state[turned].is_contiguous()
    torch.save(state, tmp_path / "m" / "pytorch_model.bin")
    found = proof_of(model, tmp_path / "m")
    assert found.ok
    assert {turned, EMBED} <= set(found.proven)
    assert found.tied_twice == (HEAD,), "the archive holds its bytes once, under two names"
    state[turned] = state[turned].clone()
    state[turned][5, 7] += 1
    state[turned] = state[turned].t().contiguous().t()
    torch.save(state, tmp_path / "m" / "pytorch_model.bin")
    (one,) = proof_of(model, tmp_path / "m").different
    assert (one.name, one.first // 4) == (turned, 5 * 32 + 7)


def test_prove_adapters_of_several_names(tmp_path: Path) -> None:
    from peft import LoraConfig

    model = models.peft()
    model.add_adapter("style", LoraConfig(r=2, target_modules=["v_proj"], task_type="CAUSAL_LM"))
    model.save_pretrained(tmp_path / "m")
    found = proof_of(model, tmp_path / "m")
    assert found.ok
    assert any(name.startswith("style/base_model") for name in found.proven)
    (tmp_path / "m" / "style" / "adapter_model.safetensors").unlink()
    found = proof_of(model, tmp_path / "m")
    assert found.missing
    assert all(name.startswith("style/") for name in found.missing)


def test_prove_adapter_names_of_a_bare_state_dict(tmp_path: Path) -> None:
    model = models.peft()
    saved(model, tmp_path / "m")

    def bare(tensors: damaged.Tensors) -> None:
        for name in list(tensors):
            tensors[name.replace(".weight", ".default.weight")] = tensors.pop(name)

    def shorter(tensors: damaged.Tensors) -> None:
        for name in list(tensors):
            tensors[name.removeprefix("base_model.model.")] = tensors.pop(name)

    for change in (bare, shorter):
        damaged.rewritten(tmp_path / "m", tmp_path / change.__name__, change)
        found = proof_of(model, tmp_path / change.__name__)
        assert len(found.wrapper_names) == 8
        assert not found.missing
        assert not found.foreign
        assert not found.different


def test_prove_frozen_base_in_an_adapter_is_foreign(tmp_path: Path) -> None:
    model = models.peft()
    saved(model, tmp_path / "m")
    name = "base_model.model.model.layers.0.self_attn.k_proj.weight"
    added = {name: model.state_dict()[name]}
    damaged.rewritten(tmp_path / "m", tmp_path / "base", lambda tensors: tensors.update(added))
    assert proof_of(model, tmp_path / "base").foreign == (name,)


def test_prove_merged_folder_of_a_peft_model(tmp_path: Path) -> None:
    model = models.peft()
    merged = models.peft().merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    assert proof_of(model, tmp_path / "merged").ok
    model.get_base_model().save_pretrained(tmp_path / "unmerged")
    assert not proof_of(model, tmp_path / "unmerged").ok


def test_prove_stale_files_are_named(tmp_path: Path) -> None:
    model = models.llama()
    saved(model, tmp_path / "m")
    other = models.llama(seed=1)
    torch.save(other.state_dict(), tmp_path / "m" / "pytorch_model.bin")
    shutil.copy(tmp_path / "m" / "model.safetensors", tmp_path / "m" / "old.safetensors")
    torch.save({}, tmp_path / "m" / "training_args.bin")
    found = proof_of(model, tmp_path / "m")
    assert found.weights_ok
    assert found.stale == ("old.safetensors", "pytorch_model.bin")
    assert "remove old.safetensors, pytorch_model.bin" in found.summary


def test_prove_file_that_no_index_names_is_stale_by_its_name(tmp_path: Path) -> None:
    model = models.llama()
    folder = saved(model, tmp_path / "m", max_shard_size="20KB")
    shard = next(folder.glob("model-*.safetensors"))
    for name in ("consolidated.safetensors", "model-old.safetensors"):
        shutil.copy(shard, folder / name)
    assert proof_of(model, folder).stale == ("model-old.safetensors",)


def test_prove_base_beside_an_adapter_is_not_stale(tmp_path: Path) -> None:
    model = models.peft()
    models.llama().save_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    assert not proof_of(model, tmp_path).stale


def test_prove_index_that_lies_is_a_problem(tmp_path: Path) -> None:
    model = models.llama()
    saved(model, tmp_path / "m", max_shard_size="20KB")
    index = tmp_path / "m" / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    files = sorted(set(content["weight_map"].values()))
    content["weight_map"][EMBED] = next(f for f in files if f != content["weight_map"][EMBED])
    index.write_text(json.dumps(content))
    (text,) = proof_of(model, tmp_path / "m").problems
    assert EMBED in text


def test_prove_shards_in_each_others_place_are_problems(tmp_path: Path) -> None:
    model = models.llama()
    folder = saved(model, tmp_path / "m", max_shard_size="20KB")
    one, other, *_ = sorted(folder.glob("model-*.safetensors"))
    one.rename(folder / "aside")
    other.rename(one)
    (folder / "aside").rename(other)
    found = proof_of(model, folder)
    assert found.problems
    assert not found.different, "a loader of all shards would still find each tensor"


@pytest.mark.parametrize("key", ["vocab_size", "rope_parameters", "architectures"])
def test_prove_configuration_that_differs_is_named(tmp_path: Path, key: str) -> None:
    model = models.llama()
    saved(model, tmp_path)
    path = tmp_path / "config.json"
    content = json.loads(path.read_text())
    content[key] = {"vocab_size": 68, "architectures": ["OtherForCausalLM"]}.get(
        key, content["rope_parameters"] | {"rope_theta": 5.0}
    )
    path.write_text(json.dumps(content))
    found = proof_of(model, tmp_path)
    assert [one.key.partition(".")[0] for one in found.companions] == [key]
    assert found.weights_ok
    assert not found.ok


def test_prove_settings_of_training_are_no_difference(tmp_path: Path) -> None:
    model = models.llama()
    saved(model, tmp_path)
    model.config.use_cache = False
    model.config._name_or_path = "elsewhere"
    assert proof_of(model, tmp_path).ok


def test_prove_tokenizer_and_template(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    model = models.llama()
    saved(model, tmp_path, tokenizer=tokenizer)
    tokenizer(["a", "a b"], padding=True, truncation=True, max_length=4)
    assert proof_of(model, tmp_path, tokenizer=tokenizer).ok
    (tmp_path / "chat_template.jinja").write_text("other")
    found = proof_of(model, tmp_path, tokenizer=tokenizer)
    assert [one.file for one in found.companions] == ["chat_template.jinja"]
    tokenizer.add_tokens(["more"])
    files = {one.file for one in proof_of(model, tmp_path, tokenizer=tokenizer).companions}
    assert "tokenizer.json" in files
    with pytest.raises(RequestError, match="save_pretrained"):
        prove(model, tmp_path, tokenizer="gpt2")


def make_tokenizer() -> Any:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({"[UNK]": 0, "a": 1, "b": 2}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    made = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", pad_token="[UNK]")
    made.chat_template = "{{ messages[0]['content'] }}"
    return made


def test_prove_wide_dtype_is_lossless(tmp_path: Path) -> None:
    model = models.llama().bfloat16()
    saved(model, tmp_path / "m")

    def widen(tensors: damaged.Tensors) -> None:
        tensors.update({name: tensor.float() for name, tensor in tensors.items()})

    damaged.rewritten(tmp_path / "m", tmp_path / "wide", widen)
    found = proof_of(model, tmp_path / "wide")
    assert found.ok
    assert {(one.dtype, one.lossless) for one in found.cast} == {("float32", True)}


def test_prove_special_bits_are_compared_as_bits(tmp_path: Path) -> None:
    class Odd(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            bits = torch.tensor([0x7FC00001, -0x80000000, 1], dtype=torch.int32)
            self.weight = torch.nn.Parameter(bits.view(torch.float32))
            self.register_buffer("none", torch.empty(0, 4))
            self.register_buffer("scalar", torch.tensor(3))

    model = Odd()
    saved(model, tmp_path / "m")
    assert proof_of(model, tmp_path / "m").ok
    damaged.flip(tmp_path / "m", tmp_path / "payload", "weight", 1)
    (one,) = proof_of(model, tmp_path / "payload").different
    assert (one.name, one.first, one.count) == ("weight", 1, 1)


def test_prove_many_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from canonical_saver.proving import comparison
    from canonical_saver.writing import write_items

    monkeypatch.setattr(comparison, "CHUNK", 96)
    monkeypatch.setattr(write_items, "PIECE", 1000)
    model = models.llama()
    saved(model, tmp_path / "m")
    assert proof_of(model, tmp_path / "m").ok
    path, start, size = damaged.place(tmp_path / "m", EMBED)
    damaged.overwrite(path, start, bytes(size))
    found = proof_of(model, tmp_path / "m")
    assert found.all_zero == (EMBED,)
    mine = model.state_dict()[EMBED].view(torch.uint8)
    assert found.different[0].count == int((mine != 0).sum())


def test_proof_of_a_rank_that_does_not_see_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from canonical_saver.proving import prove as page

    model = models.llama()
    saved(model, tmp_path)
    assert page._sees(tmp_path, page._read(tmp_path, [])) is True
    monkeypatch.setattr(page, "_sees", lambda *_: False)
    found = page.prove(model, tmp_path)
    assert found.blind == (0,)
    assert EMBED in found.unseen
    assert not found.proven
    assert "see the folder" in found.summary


def test_prove_folders_without_weights(tmp_path: Path) -> None:
    with pytest.raises(ProofError, match="expected a folder"):
        prove(models.llama(), tmp_path / "none")
    found = proof_of(models.llama(), tmp_path)
    assert len(found.missing) == 21
    with pytest.raises(ProofError, match="no weights"):
        prove(models.llama(), tmp_path, strict=True)


def test_proven_saver_raises_where_the_folder_is_not_the_model(tmp_path: Path) -> None:
    @proven
    def good(model: Any, output_dir: Path) -> str:
        model.save_pretrained(output_dir)
        return "done"

    @proven
    def bad(cfg: Any, trainer: Any, model: Any) -> None:
        models.llama(seed=1).save_pretrained(cfg["output_dir"])

    model = models.llama()
    assert good(model, tmp_path / "good") == "done"
    with pytest.raises(ProofError, match="save the model again"):
        bad({"output_dir": str(tmp_path / "bad")}, None, model)
    with pytest.raises(ProofError, match="expected the folder"):
        proven(lambda model: None)(model)


def hostile(folder: Path, path: Path) -> dict[str, bytes]:
    """Contents of a weight file, none of them one."""
    good = path.read_bytes()
    deep = b"[" * 200_000
    header = {"a": {"dtype": "F32", "shape": [2**62, 8], "data_offsets": [0, 8]}}
    return {
        "empty": b"",
        "short": good[:20],
        "cut": good[:-1],
        "long": good + b"\0",
        "huge": (2**60).to_bytes(8, "little") + good[8:],
        "deep": len(deep).to_bytes(8, "little") + deep,
        "shape": b"".join(
            (len(t).to_bytes(8, "little") + t) for t in [json.dumps(header).encode()]
        ),
        "zip": b"PK\x03\x04" + good,
    }


def test_prove_hostile_weight_files_are_problems(tmp_path: Path) -> None:
    model = models.llama()
    folder = saved(model, tmp_path / "m")
    path = folder / "model.safetensors"
    for name, content in hostile(folder, path).items():
        path.write_bytes(content)
        found = proof_of(model, folder)
        assert found.problems, name
        assert not found.ok
    path.unlink()
    os.mkfifo(path)
    assert proof_of(model, folder).problems


def test_prove_index_leads_nowhere_outside(tmp_path: Path) -> None:
    model = models.llama()
    saved(model, tmp_path / "other")
    (tmp_path / "m").mkdir()
    for name in ("../other/model.safetensors", "/etc/passwd", "model.safetensors\0", ".hidden"):
        index = {"weight_map": {EMBED: name}}
        (tmp_path / "m" / "model.safetensors.index.json").write_text(json.dumps(index))
        found = proof_of(model, tmp_path / "m")
        assert found.problems
        assert not found.bytes


class Trap:
    def __reduce__(self) -> Any:
        return os.mkdir, ("trap",)


def test_prove_archives_are_not_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = models.llama()
    path = tmp_path / "m" / "pytorch_model.bin"
    path.parent.mkdir()
    torch.save({EMBED: Trap()}, path)
    assert proof_of(model, path.parent).problems
    assert not (tmp_path / "trap").exists()
    torch.save([1, 2], path)
    assert "state dict" in proof_of(model, path.parent).problems[0]
    torch.save({EMBED: torch.zeros(3)}, path, _use_new_zipfile_serialization=False)
    assert "old form" in proof_of(model, path.parent).problems[0]
    torch.save(model.state_dict(), path)
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in records.items():
            archive.writestr(name, data)
    assert "compressed" in proof_of(model, path.parent).problems[0]


def test_prove_named_adapter_beside_its_base(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    models.llama().save_pretrained(tmp_path)
    config = LoraConfig(r=2, target_modules=["v_proj"], task_type="CAUSAL_LM")
    model: Any = get_peft_model(models.llama(), config, adapter_name="style")
    model.save_pretrained(tmp_path)
    assert (tmp_path / "style" / "adapter_model.safetensors").exists()
    found = proof_of(model, tmp_path)
    assert found.ok
    assert all(name.startswith("style/") for name in found.proven)


def test_proof_shows_names_of_a_folder_without_harm(tmp_path: Path) -> None:
    model = models.llama()
    saved(model, tmp_path / "m")
    added = {"\x1b[2J": torch.zeros(2), "a\nb": torch.zeros(2)}
    damaged.rewritten(tmp_path / "m", tmp_path / "names", lambda tensors: tensors.update(added))
    found = proof_of(model, tmp_path / "names")
    assert set(found.foreign) == set(added)
    assert str(found).replace("\n", "").isprintable()
