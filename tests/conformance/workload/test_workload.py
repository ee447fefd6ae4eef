"""The workload without engines: names, tables and configurations against the libraries."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given

from saver_conformance.cases import families
from saver_conformance.cases.case import MODES, Adapter, Case, Mode
from saver_conformance.cases.families import custom
from saver_conformance.cases.limits import why_untrainable
from saver_conformance.cases.profiles import cases_of
from saver_conformance.cases.strategies import cases, make_case
from saver_conformance.folder.layout import scan
from saver_conformance.folder.safetensors import read_header
from saver_conformance.workload import existing_files, models, oracle, prepare, training
from saver_conformance.workload.config import CFG_KEYS, Config, make_config
from saver_conformance.workload.hub_names import (
    adapter_folder,
    adapter_key,
    embedding_keys,
    to_hub,
)
from saver_conformance.workload.tokenizer import make_tokenizer

ADAPTERS = [
    Adapter(),
    Adapter(modules_to_save=("lm_head",)),
    Adapter(modules_to_save=("embed_tokens", "lm_head"), bias="all"),
    Adapter(dora=True, bias="lora_only", r=1),
    Adapter(targets=("q_proj", "embed_tokens")),
    Adapter(targets=("q_proj", "embed_tokens"), modules_to_save=("lm_head",)),
    Adapter(names=("style",)),
    Adapter(names=("default", "style"), modules_to_save=("lm_head",), dora=True),
]


def _base(tmp_path: Path, case: Case) -> Path:
    models.save_base(case, tmp_path / "base")
    return tmp_path / "base"


@pytest.mark.parametrize("sizes", ["even", "odd"])
@pytest.mark.parametrize("architecture", families.names())
def test_hub_names_are_those_of_save_pretrained(tmp_path, architecture, sizes):
    case = Case(Mode("full", "single"), architecture=architecture, sizes=sizes)
    model = models.load_base(case, _base(tmp_path, case))
    names = oracle.read_names(model, case.family)
    memory = oracle.snapshot("single", model, names, names.of_whole_model)
    model.save_pretrained(tmp_path / "saved")
    header = read_header(tmp_path / "saved" / "model.safetensors")
    found = {name: (span.dtype, span.shape) for name, span in header.tensors.items()}
    expected = {n: (t.dtype, t.shape) for n, t in to_hub(case.family, memory).items()}
    assert found == expected
    assert type(model).__name__ == case.family.class_name


def _pairs_with_untied_embeddings():
    """Each adapter on each architecture; training a tied half apart is no case of the suite."""
    for adapter in ADAPTERS:
        yield "qwen2", adapter
        if not adapter.modules_to_save and "embed_tokens" not in adapter.targets:
            yield "llama-tied", adapter


@pytest.mark.parametrize("vocabulary", ["same", "resized"])
@pytest.mark.parametrize(("architecture", "adapter"), [*_pairs_with_untied_embeddings()], ids=str)
def test_adapter_keys_are_those_of_peft(tmp_path, architecture, adapter, vocabulary):
    case = Case(
        Mode("lora", "single"), architecture=architecture, adapter=adapter, vocabulary=vocabulary
    )
    model = training.adapt(models.load_base(case, _base(tmp_path, case)), case)
    names = oracle.read_names(model, case.family)
    model.save_pretrained(tmp_path / "saved")
    for own in adapter.names:
        folder = tmp_path / "saved" / adapter_folder(own)
        header = read_header(folder / "adapter_model.safetensors")
        needed = {adapter_key(name, own) for name in names.trainable if own == adapter.names[0]}
        needed |= {k for n in names.parameters if (k := adapter_key(n, own)) != n}
        optional = embedding_keys(case.family, (*names.parameters, *names.tied), own)
        # PEFT does not tell a second adapter its base, and so finds no other vocabulary there.
        if vocabulary == "resized" and own == adapter.names[0]:
            needed |= {adapter_key(name, own) for name in names.embeddings}
        # PEFT saves no embedding beside one it adapts, so that resized rows of lm_head are lost.
        lost = {adapter_key("base_model.model.lm_head.weight")}
        forgotten = lost if "embed_tokens" in adapter.targets else set()
        assert needed - forgotten <= set(header.tensors) <= needed | optional


@pytest.mark.parametrize(
    ("name", "key"),
    [
        (
            "base_model.model.default.lora_A.default.weight",
            "base_model.model.default.lora_A.weight",
        ),
        ("base_model.model.lora_head.weight", "base_model.model.lora_head.weight"),
        ("base_model.model.a.lora_embedding_A.default", "base_model.model.a.lora_embedding_A"),
        (
            "base_model.model.a.lora_magnitude_vector.default.weight",
            "base_model.model.a.lora_magnitude_vector",
        ),
        ("base_model.model.h.modules_to_save.default.weight", "base_model.model.h.weight"),
    ],
)
def test_adapter_key_survives_adversarial_names(name, key):
    assert adapter_key(name) == key


def test_tied_parameters_are_named_once(tmp_path):
    case = Case(Mode("full", "single"), architecture="llama-tied")
    names = oracle.read_names(models.load_base(case, _base(tmp_path, case)), case.family)
    assert names.tied == {"lm_head.weight": "model.embed_tokens.weight"}
    assert "lm_head.weight" not in names.parameters


@pytest.mark.parametrize("dtype", list(oracle.SPECIAL_BITS))
def test_planted_bits_survive_in_the_snapshot(dtype):
    layer = torch.nn.Linear(8, 8, bias=False).to(dtype)
    oracle.plant("single", layer)
    view, patterns = oracle.SPECIAL_BITS[dtype]
    special_values = layer.weight.detach().view(-1).view(view)
    assert special_values[:8].tolist() == list(patterns)
    assert (
        oracle.bits(layer.weight).data == special_values.clone().view(torch.uint8).numpy().tobytes()
    )


def test_a_snapshot_leaves_the_storage_resizable():
    weight = torch.ones(4)
    oracle.bits(weight)
    weight.untyped_storage().resize_(0)


def test_cfg_answers_none_for_what_is_missing(tmp_path):
    case = Case(Mode("full", "fsdp2"), world_size=2)
    cfg = make_config(case, tmp_path, tmp_path / "out", 1)
    assert isinstance(cfg, Config)
    assert cfg.adapter is None
    assert cfg["no_such_key"] is None
    assert cfg.fsdp_config.no_such_key is None
    assert cfg.fsdp_config.version == 2
    assert "no_such_key" not in cfg


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_every_key_of_cfg_is_documented(tmp_path, mode):
    cfg = make_config(make_case(mode, {}), tmp_path, tmp_path, 0)
    assert set(cfg) <= set(CFG_KEYS)


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_planned_cases_can_be_trained(mode):
    assert [case for case in cases_of(mode, "gate") if why_untrainable(case)] == []


def test_the_documented_keys_are_those_of_the_suite():
    text = (Path(__file__).parents[3] / "docs" / "reference" / "cfg.md").read_text()
    for key, meaning in CFG_KEYS.items():
        assert f"| `{key}` | {meaning} |" in text


@given(cases())
def test_drawn_cases_can_be_trained(case):
    assert why_untrainable(case) == ""
    assert Case.from_json(case.to_json()) == case


@pytest.mark.parametrize("text", ["[]", '{"mode": "lora-zero4"}', '{"colour": 1}', "{}"])
def test_what_is_no_case_is_refused(text):
    with pytest.raises(ValueError, match=r"case|mode"):
        Case.from_json(text)


@pytest.mark.parametrize("foreign_files", ["none", "strangers", "readonly", "processor"])
@pytest.mark.parametrize("existing_save", ["empty", "single", "sharded", "adapter", "another"])
def test_occupants_are_what_the_case_says(tmp_path, existing_save, foreign_files):
    case = Case(Mode("full", "single"), existing_save=existing_save, foreign_files=foreign_files)
    base, output = _base(tmp_path, case), tmp_path / "out"
    make_tokenizer(models.vocabulary_size(case), chat=True).save_pretrained(base)
    existing_files.occupy(case, output, base)
    entries = scan(output) if output.exists() else {}
    names = set(entries)
    assert ("model.safetensors" in names) == (existing_save == "single")
    assert ("model.safetensors.index.json" in names) == (existing_save == "sharded")
    assert ("adapter_model.safetensors" in names) == (existing_save == "adapter")
    assert ("pytorch_model.bin.index.json" in names) == (existing_save == "another")
    assert ("checkpoint-1/model.safetensors" in names) == (
        foreign_files in ("strangers", "readonly")
    )
    assert ("preprocessor_config.json" in names) == (foreign_files == "processor")
    assert bool(names) == (existing_save != "empty" or foreign_files != "none")
    protected = [entry.mode == 0o444 for entry in entries.values() if entry.kind == "file"]
    assert all(protected) == (foreign_files == "readonly" or not names)


CONTRARY = [
    case
    for name in families.names()
    if not why_untrainable(case := Case(Mode("full", "single"), architecture=name, tie="contrary"))
]


@pytest.mark.parametrize("case", CONTRARY, ids=lambda case: case.architecture)
def test_a_contrary_head_is_tied_where_the_configuration_is_not(tmp_path, case):
    model = models.load_base(case, _base(tmp_path, case))
    assert model.config.tie_word_embeddings == case.declares_tie
    assert bool(oracle.read_names(model, case.family).tied) != case.declares_tie


def test_what_a_trainer_set_is_the_trained_configuration(tmp_path):
    case = Case(Mode("full", "single"), architecture="mixtral")
    model = models.load_base(case, _base(tmp_path, case))
    names = oracle.read_names(model, case.family)
    memory = oracle.snapshot("single", model, names, names.of_whole_model)
    model.config.output_router_logits = True
    expected = prepare.expect(case, tmp_path, model, names, memory, {})
    assert expected.config["output_router_logits"] is True
    assert expected.config["num_local_experts"] == 4


@pytest.mark.parametrize("engine", ["single", "ddp", "fsdp1", "fsdp2", "zero3"])
def test_the_custom_model_has_tensors_of_every_kind(tmp_path, engine):
    case = make_case(Mode("full", engine), {"architecture": "custom", "views": True})
    model = models.load_base(case, _base(tmp_path, case))
    names = oracle.read_names(model, case.family)
    found = oracle.snapshot("single", model, names, names.of_whole_model)
    ledger = {n: t for n, t in found.items() if ".ledger." in n}
    buffers = {n: t for n, t in ledger.items() if n in names.buffers}
    assert {"BOOL", "I32", "I64", "F32"} == {tensor.dtype for tensor in buffers.values()}
    assert {(), (0, 3)} <= {tensor.shape for tensor in buffers.values()}
    whole, window = model.model.ledger.whole, model.model.ledger.window
    assert window.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr()
    odd = {(), (0, 4)} <= {t.shape for n, t in ledger.items() if n not in names.buffers}
    assert odd == (not case.mode.definition.no_odd_parameters)
    for layer in custom.LAYERS:
        assert f"model.residuals.{layer}.weight" in names.parameters


def test_hybrid_sharding_is_for_ranks_that_shard():
    Case(Mode("full", "fsdp2"), world_size=4, replicas=2)
    for engine, size, replicas in (("fsdp1", 4, 2), ("fsdp2", 3, 2), ("fsdp2", 2, 2)):
        with pytest.raises(ValueError, match="replicas"):
            Case(Mode("full", engine), world_size=size, replicas=replicas)


def test_contradictory_settings_of_generation_are_those_of_the_trained_model(tmp_path):
    case = Case(Mode("full", "single"), generation="contradictory")
    model = models.load_base(case, _base(tmp_path, case))
    with pytest.raises(ValueError, match="temperature"):
        model.save_pretrained(tmp_path / "saved")
    assert models.demanded_generation(case) == ("eos_token_id",)
    sampling = Case(Mode("full", "single"))
    models.load_base(sampling, _base(tmp_path, sampling)).save_pretrained(tmp_path / "saved")
    assert set(models.demanded_generation(sampling)) == set(models.GENERATION)


def test_an_adapter_has_no_settings_of_generation():
    with pytest.raises(ValueError, match="no settings of generation"):
        Case(Mode("lora", "single"), adapter=Adapter(), generation="contradictory")
