"""Merged models are planned for modes that train a LoRA, and asked of savers that claim it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from saver_conformance import checks
from saver_conformance.cases.adapter_kinds import adapter_kinds
from saver_conformance.cases.case import MODES, Adapter, Case, Mode
from saver_conformance.cases.merging import RESULTS, merging
from saver_conformance.cases.profiles import cases_of
from saver_conformance.cases.strategies import is_valid, make_case, with_family
from saver_conformance.claims.claim import Claim, claims_in
from saver_conformance.claims.claims_file import read_claims
from saver_conformance.claims.known_savers import find_claim
from saver_conformance.errors import ClaimsFileError, UnknownSaverError
from saver_conformance.observation.finding import Finding
from saver_conformance.run import plan
from saver_conformance.verdict.verdict import CaseRecord, aggregate
from saver_conformance.workload.config import make_config

LORA = [mode for mode in MODES if mode.method == "lora"]
SINGLE = Mode("lora", "single")


def merged(cases: tuple[Case, ...]) -> list[Case]:
    return [case for case in cases if case.result != "trained"]


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_gate_has_a_merged_model_for_each_mode_that_trains_a_lora(mode: Mode) -> None:
    for profile in ("survey", "gate"):
        assert bool(merged(cases_of(mode, profile))) == (mode in LORA)
    assert not merged(cases_of(mode, "smoke"))


def test_gate_merges_each_kind_of_adapter_that_is_not_held_as_a_lora() -> None:
    planned = [case for mode in LORA for case in merging(mode)]
    found = {case.adapter.kind for case in planned if case.adapter}
    able = {
        kind
        for kind, one in adapter_kinds().items()
        if is_valid(with_family({"kind": kind, "result": "merged"}), SINGLE)
        if (one.peft_type, one.marks, one.needs) != ("LORA", ("lora_",), "")
    }
    assert found == {"lora", *able}
    assert {"ia3", "oft", "target_parameters", "trainable_tokens"} <= found
    assert not {"prompt_tuning", "prefix_tuning", "add_adapter"} & found
    assert {case.result for case in planned} == set(RESULTS)
    assert len(planned) < 25


def test_nightly_merges_each_kind_in_each_mode_that_trains_it() -> None:
    for mode in LORA:
        planned = [case for case in merging(mode, wide=True) if case.adapter]
        own = [case for case in planned if case.adapter and case.adapter.kind == "lora"]
        assert {case.result for case in own} == set(RESULTS)
        if mode in (SINGLE, Mode("lora", "ddp")):
            assert {"float32", "bfloat16", "mixed"} == {case.dtype for case in own}
            assert len({case.adapter.kind for case in planned if case.adapter}) > 10


@pytest.mark.parametrize("mode", ["full-single", "qlora-single"])
def test_case_what_cannot_be_merged_is_refused(mode: str) -> None:
    adapter = Adapter() if mode == "qlora-single" else None
    with pytest.raises(ValueError, match="only an adapter on a base that is not quantized merges"):
        Case(Mode.parse(mode), adapter=adapter, result="merged")


def test_case_merged_is_held_to_the_clauses_of_whole_models() -> None:
    case = make_case(SINGLE, {"result": "merged"})
    assert (case.saved_as, case.saves_adapter) == (Mode("full", "single"), False)
    assert Case.from_json(case.to_json()) == case
    demanded = checks.applicable(case)
    assert {"FILES-001", "META-001", "RELOAD-003", "TENSOR-006"} <= set(demanded)
    assert not {"FILES-002", "ADAPTER-002"} & set(demanded)
    assert "FILES-002" in checks.applicable(make_case(SINGLE, {}))


def test_aggregate_counts_clauses_of_whole_models_in_the_mode_of_the_adapter() -> None:
    case = make_case(SINGLE, {"result": "merged"})
    finding = Finding("a file", "none", clause="FILES-001", case=case)
    record = CaseRecord(case, ("FILES-001",), "run", ran={"FILES-001": (finding,)})
    full = Mode("full", "single")
    [other, row] = aggregate([record], [SINGLE], {"FILES-001": "MUST"}, {"FILES-001": [full]})
    assert (other.mode, other.status) == (full, "not claimed")
    assert (row.mode, row.status, row.findings) == (SINGLE, "fail", (finding,))


def test_config_names_the_key_that_asks(tmp_path: Path) -> None:
    asked = {
        result: make_config(make_case(SINGLE, {"result": result}), tmp_path, tmp_path, 0)
        for result in ("trained", *RESULTS)
    }
    found = {result: (cfg.merge_lora, cfg.relora) for result, cfg in asked.items()}
    assert found == {"trained": (None, None), "merged": (True, None), "relora": (None, True)}


@pytest.mark.parametrize("results", [("trained",), ("trained", "relora"), ("trained", *RESULTS)])
def test_plan_has_what_the_saver_claims_to_make(results: tuple[str, ...]) -> None:
    planned = plan(Claim("a:b", results=results), LORA, "survey")
    assert {case.result for case in planned} == set(results)


def test_claims_results_are_read_from_a_file_and_from_the_source(tmp_path: Path) -> None:
    path = tmp_path / "claims.toml"
    path.write_text('results = ["trained", "merged"]\n')
    assert read_claims(path).results == ("trained", "merged")
    path.write_text('results = ["melted"]\n')
    with pytest.raises(ClaimsFileError, match="no result is called 'melted'"):
        read_claims(path)
    path.write_text('[only]\nresult = ["merged"]\n')
    with pytest.raises(ClaimsFileError, match=r"only\.result"):
        read_claims(path)
    source = tmp_path / "own_saver.py"
    source.write_text(
        "from saver_conformance.claims import claims\n\n\n"
        '@claims("own", results=["trained", "relora"])\n'
        "def save(cfg, trainer, model): ...\n"
    )
    [claim] = claims_in(source, "own_saver")
    assert claim.results == ("trained", "relora")


def test_find_claim_a_claims_file_beside_the_module_counts_without_a_decorator(
    tmp_path: Path,
) -> None:
    package = tmp_path / "own_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "saving.py").write_text(
        "from saver_conformance.claims import claims\n\n\n"
        "def plain(cfg, trainer, model): ...\n\n\n"
        '@claims("own", modes=["lora-*"])\n'
        "def decorated(cfg, trainer, model): ...\n"
    )
    (package / "saver_claims.toml").write_text('results = ["trained", "merged"]\n')
    plain = find_claim("own_package.saving:plain", tmp_path)
    assert (plain.address, plain.results) == ("own_package.saving:plain", ("trained", "merged"))
    assert find_claim("own_package.saving:decorated", tmp_path).results == ("trained",)
    (package / "saver_claims.toml").write_text("results = 1\n")
    with pytest.raises(UnknownSaverError, match="results: expected a list of names"):
        find_claim("own_package.saving:plain", tmp_path)


def test_the_reference_claims_to_merge() -> None:
    claim = find_claim("canonical_saver:save_trained_model", Path.cwd())
    assert set(claim.results) == {"trained", *RESULTS}


def test_short_json_of_a_merged_case_is_the_case() -> None:
    for case in merging(SINGLE):
        assert json.loads(case.to_short_json())["result"] == case.result
        assert Case.from_json(case.to_short_json()) == case
