"""Savers by name and by what they claim, and the shipping savers' own claims."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from saver_conformance.cases.case import MODES, Adapter, Case, Mode
from saver_conformance.cases.profiles import cases_of
from saver_conformance.cases.strategies import make_case
from saver_conformance.claims import Claim, claims
from saver_conformance.claims.claim import claimed_modes
from saver_conformance.claims.known_savers import find_claim, list_savers
from saver_conformance.errors import UnknownSaverError

ROOT = Path(__file__).parents[3]
SHIPPING = list(list_savers(ROOT, Path("fixtures/savers")))
SAVERS_DIR = Path("mine")


@pytest.fixture
def folder(tmp_path):
    def write(text):
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine" / "odd.py").write_text(text)
        return tmp_path

    return write


CLAIMED = """
import no_such_library
from saver_conformance.claims import claims
@claims("mine", modes=["full-*"], only={"max_shard_size": [None]}, without=["META-*"])
def save(cfg, trainer, model): ...
def plain(cfg, trainer, model): ...
"""


@pytest.mark.parametrize("saver", ["mine", "mine.odd:save"])
def test_a_claim_is_found_by_name_and_by_address_without_an_import(folder, saver):
    claim = find_claim(saver, folder(CLAIMED), SAVERS_DIR)
    assert claim.address == "mine.odd:save"
    assert claim.name == "mine"
    assert claim.modes == ("full-*",)
    assert claim.leaves_out("META-003")
    assert not claim.leaves_out("TENSOR-001")


@pytest.mark.parametrize("saver", ["mine.odd:plain", "somewhere.else:save"])
def test_without_a_claim_everything_is_claimed(folder, saver):
    claim = find_claim(saver, folder(CLAIMED), SAVERS_DIR)
    assert claimed_modes(claim, MODES) == MODES
    assert not claim.leaves_out("META-003")


def test_an_unknown_name_is_told_with_those_that_are_known(folder):
    with pytest.raises(UnknownSaverError, match=r"'other' is no saver.* mine"):
        find_claim("other", folder(CLAIMED), SAVERS_DIR)


def test_modes_that_are_not_claimed_are_left_out(folder):
    claim = find_claim("mine", folder(CLAIMED), SAVERS_DIR)
    full, lora = Mode("full", "ddp"), Mode("lora", "ddp")
    assert claimed_modes(claim, (full, lora)) == (full,)
    with pytest.raises(UnknownSaverError, match=r"mine claims none .* full-\*"):
        claimed_modes(claim, (lora,))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("'mine', modes=[name]", "a name and literals"),
        ("'mine', modes=['fool-*']", "no mode is called 'fool-\\*'"),
        ("'mine', without=['TENSE-*']", "no clause is called 'TENSE-\\*'"),
        ("'mine', only={'colour': ['red']}", "a case has no colour"),
        ("'mine', colour='red'", "a name and literals"),
    ],
)
def test_a_claim_that_makes_no_sense_is_an_error(folder, arguments, message):
    begin = "from saver_conformance.claims import claims\n"
    text = f"{begin}@claims({arguments})\ndef save(cfg, trainer, model): ...\n"
    with pytest.raises(UnknownSaverError, match=message):
        find_claim("mine", folder(text), SAVERS_DIR)


def test_a_case_is_fitted_to_the_claim_and_otherwise_kept():
    claim = Claim("a:b", only={"max_shard_size": [None], "dora": [False]}, trainer="trl-sft")
    adapter = Adapter(dora=True, r=7)
    case = Case(Mode("lora", "single"), adapter=adapter, max_shard_size=4_000, sizes="odd")
    fitted = claim.fit(case)
    assert fitted.max_shard_size is None
    assert fitted.adapter == Adapter(r=7)
    assert fitted.sizes == "odd"
    assert fitted.trainer == "trl-sft"
    assert claim.fit(fitted) == fitted


def saves_of(case):
    return [case] if case.after is None else [case, *saves_of(case.after)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "claim",
    [
        *SHIPPING,
        Claim("a:b", modes=("lora-*", "qlora-*"), only={"names": [("default",)], "r": [4, 8]}),
        Claim("a:b", modes=("full-*",), only={"tokenizer": ["plain"], "max_shard_size": [None]}),
        Claim("a:b", only={"existing_save": ["single"]}),
        Claim("a:b", trainer="trl-sft"),
    ],
    ids=lambda claim: claim.name or str(claim.only),
)
def test_fit_makes_every_save_of_a_sequence_one_that_is_claimed(claim):
    planned = [case for mode in claimed_modes(claim, MODES) for case in cases_of(mode, "gate")]
    fitted = [claim.fit(case) for case in planned]
    for save in (save for case in fitted for save in saves_of(case)):
        assert save.mode.matches(claim.modes)
        assert save.trainer == claim.trainer
        for name, values in claim.only.items():
            data = save if hasattr(save, name) else save.adapter
            assert data is None or getattr(data, name) in values
    assert [claim.fit(case) for case in fitted] == fitted


def test_fit_keeps_what_is_claimed_of_a_sequence():
    [sequence] = [case for case in cases_of(Mode("lora", "ddp"), "gate") if case.after]
    assert len(saves_of(sequence)) == 3
    assert Claim("a:b").fit(sequence) == sequence
    assert len(saves_of(Claim("a:b", modes=("lora-*",)).fit(sequence))) == 2


def test_the_decorator_leaves_the_function_as_it_is():
    def save(cfg, trainer, model): ...

    assert claims("mine")(save) is save


@pytest.mark.slow
@pytest.mark.parametrize("claim", SHIPPING, ids=lambda claim: claim.name)
def test_a_shipping_saver_claims_modes_and_fits_every_case_of_a_survey(claim):
    assert claim.name
    modes = claimed_modes(claim, MODES)
    cases = {claim.fit(case) for mode in modes for case in cases_of(mode, "survey")}
    assert {case.mode for case in cases} == set(modes)
    assert all(Case.from_json(case.to_json()) == case for case in cases)


def test_names_are_given_once():
    names = [claim.name for claim in SHIPPING]
    assert len(names) == len(set(names)) >= 8


def test_takes_no_case_with_a_value_that_is_never_claimed() -> None:
    claim = Claim("a:b", never={"setting": ["no-gather"], "dora": [True]})
    mode = Mode("lora", "zero3")
    usual = make_case(mode, {})
    assert claim.takes(usual)
    assert not claim.takes(make_case(mode, {"setting": "no-gather"}))
    assert not claim.takes(make_case(mode, {"dora": True}))
    assert not claim.takes(replace(usual, after=make_case(mode, {"dora": True})))


def test_takes_a_case_whose_adapter_has_no_field_of_the_name() -> None:
    claim = Claim("a:b", never={"max_shard_size": [None]})
    mode = Mode("lora", "ddp")
    assert claim.takes(make_case(mode, {"max_shard_size": 4_000}))
    assert not claim.takes(make_case(mode, {}))


def test_claim_that_never_takes_an_unknown_field_is_an_error() -> None:
    with pytest.raises(UnknownSaverError, match="a case has no colour"):
        Claim("a:b", never={"colour": ["red"]})
