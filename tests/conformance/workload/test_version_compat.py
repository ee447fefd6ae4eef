"""Other trainers and other versions of libraries than the workload's own."""

from __future__ import annotations

import pytest
import torch

from saver_conformance.cases import requirement
from saver_conformance.cases.case import Adapter, Case, Mode
from saver_conformance.errors import Unavailable
from saver_conformance.workload import trainers, training, version_compat
from saver_conformance.workload.tokenizer import make_tokenizer
from saver_conformance.workload.training import RandomRows

SINGLE = Mode("full", "single")


def test_a_missing_trainer_is_unavailable_and_nobodys_fault(monkeypatch):
    monkeypatch.setattr(trainers, "find_spec", lambda name: None)
    rows = RandomRows(Case(SINGLE), seed=0)
    with pytest.raises(Unavailable, match="trl-sft needs trl"):
        trainers.make(
            *(Case(SINGLE, trainer="trl-sft"), None, {}, rows),
            *(make_tokenizer(64, chat=False), None, {}),
        )


def test_preferences_are_the_rows_as_texts():
    tokenizer = make_tokenizer(64, chat=False)
    rows = RandomRows(Case(SINGLE), seed=0, length=2)
    first, second = trainers._preferences(rows, tokenizer)
    assert (
        tokenizer(first["prompt"] + first["chosen"])["input_ids"] == rows[0]["input_ids"].tolist()
    )
    assert first["rejected"].split() == second["chosen"].split()


@pytest.mark.parametrize(("trainer", "keys"), [("transformers", 2), ("trl-sft", 3)])
def test_a_batch_is_what_the_trainer_takes(trainer, keys):
    tokens = torch.arange(16).reshape(2, 8)
    rows = {"input_ids": tokens, "labels": tokens}
    batch = trainers.make_batch(Case(SINGLE, trainer=trainer), None, rows)
    assert len(batch) == keys
    assert batch["input_ids"] is tokens


@pytest.mark.parametrize(
    ("installed", "libraries"),
    [
        ("0.18.9", {"peft", "deepspeed", "transformers"}),
        ("0.19.0", {"peft", "transformers"}),
        ("5.6.0", {"transformers"}),
        ("5.16.0", set()),
    ],
)
def test_only_older_versions_are_adjusted(monkeypatch, installed, libraries):
    monkeypatch.setattr(version_compat, "version", lambda library: installed)
    assert {row.library for row in version_compat.needed()} == libraries


def test_an_adapter_that_older_pefts_add_gets_the_dtype_of_the_first(monkeypatch):
    import peft

    cast = []

    class Tuner:
        def _cast_adapter_dtype(self, adapter_name, autocast_adapter_dtype):
            cast.append((adapter_name, autocast_adapter_dtype))

    class OldPeft:
        base_model = Tuner()

        def add_adapter(self, adapter_name, peft_config, low_cpu_mem_usage=False):
            self.added = (adapter_name, peft_config, low_cpu_mem_usage)

    monkeypatch.setattr(peft, "PeftModel", OldPeft)
    for _ in range(2):  # the second call changes nothing
        version_compat._cast_added_adapters()
    model = OldPeft()
    model.add_adapter("style", "config", low_cpu_mem_usage=True, autocast_adapter_dtype=False)
    assert model.added == ("style", "config", True)
    assert cast == [("style", False)]


def test_parameters_that_are_gathered_together_are_awaited_one_by_one(monkeypatch):
    partition = pytest.importorskip("deepspeed.runtime.zero.partition_parameters")
    calls = []
    monkeypatch.setattr(
        partition.Init,
        "_allgather_params_coalesced",
        lambda self, parameters, hierarchy=0, quantize=False: calls.append(
            (parameters, hierarchy, quantize)
        ),
    )
    for _ in range(2):  # the second call changes nothing
        version_compat._await_every_gather()
    partition.Init._allgather_params_coalesced(None, ["a", "b"], quantize=True)
    assert calls == [(["a"], 0, True), (["b"], 0, True)]


def test_a_library_that_is_not_there_needs_nothing(monkeypatch):
    def missing(library):
        raise version_compat.PackageNotFoundError(library)

    monkeypatch.setattr(version_compat, "version", missing)
    assert version_compat.needed() == ()


def test_only_the_libraries_that_are_named_are_adjusted(monkeypatch):
    done = []
    rows = [
        version_compat.Difference(name, "999", "", lambda name=name: done.append(name))
        for name in ("torch", "transformers")
    ]
    rows.append(version_compat.Difference("torch", "999", "told, not done"))
    monkeypatch.setattr(version_compat, "DIFFERENCES", rows)
    version_compat.adjust.__wrapped__("torch")
    assert done == ["torch"]
    version_compat.adjust.__wrapped__()
    assert done == ["torch", "torch", "transformers"]


@pytest.mark.parametrize(
    ("installed", "offload", "argument"),
    [
        ("5.5.0", False, "full_shard auto_wrap"),
        ("5.5.0", True, "full_shard auto_wrap offload"),
        ("5.23.0", False, True),
        ("5.23.0", True, True),
    ],
)
def test_layers_are_units_of_fsdp_in_the_words_of_each_version(
    monkeypatch, installed, offload, argument
):
    monkeypatch.setattr(version_compat, "version", lambda library: installed)
    assert training.fsdp_argument({"cpu_offload": offload}) == argument


@pytest.mark.parametrize(
    ("installed", "reason"),
    [
        ("0.20.0", "qlora-single needs peft>=0.21, found 0.20.0: OFT of 4-bit layers"),
        ("0.21.2", ""),
    ],
)
def test_a_kind_that_the_installed_peft_cannot_train_is_a_reason(monkeypatch, installed, reason):
    monkeypatch.setattr(requirement, "version", lambda library: installed)
    case = Case(Mode("qlora", "single"), adapter=Adapter(kind="oft"))
    assert version_compat.why_unable(case).startswith(reason)
    assert bool(version_compat.why_unable(case)) is bool(reason)
    assert not version_compat.why_unable(Case(Mode("qlora", "single"), adapter=Adapter()))
