"""Cases whose model a saver or its trainer cannot handle get another one that can be trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from saver_conformance.cases.case import MODES, Adapter, Case, Mode
from saver_conformance.cases.families import families
from saver_conformance.cases.fitting import nearest_trainable, with_model
from saver_conformance.cases.limits import why_untrainable
from saver_conformance.cases.strategies import make_case
from saver_conformance.cases.visits import visits
from saver_conformance.claims import Claim
from saver_conformance.claims.claim import claimed_modes
from saver_conformance.claims.known_savers import list_savers
from saver_conformance.run import plan

ROOT = Path(__file__).parents[3]
LORA = Mode("lora", "ddp")
CLAIMS = [
    *(claim for claim in list_savers(ROOT) if claim.address.startswith("fixtures.savers.")),
    Claim("a:b", only={"architecture": ["qwen2"]}),
    Claim("a:b", only={"architecture": ["mixtral", "llama"], "kind": ["lora"]}),
]


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name or str(claim.only))
def test_fit_every_visit_can_be_trained_and_adapts_layers_of_its_model(claim: Claim) -> None:
    for mode in claimed_modes(claim, MODES):
        for case in visits(mode):
            fitted = claim.fit(case)
            assert why_untrainable(fitted) == ""
            assert claim.fit(fitted) == fitted
            assert fitted.architecture in claim.only.get("architecture", families())
            if fitted.adapter:
                known = {*fitted.family.linear, fitted.family.embedding}
                assert set(fitted.adapter.targets) <= known


@pytest.mark.parametrize("selection", ["attention", "all", "embeddings"])
def test_with_model_keeps_the_selection_of_layers(selection: str) -> None:
    case = make_case(LORA, {"architecture": "phi3", "targets": selection})
    other = with_model(case, "bert", "lora")
    assert other == make_case(LORA, {"architecture": "bert", "targets": selection})


def test_with_model_leaves_views_where_a_family_has_them() -> None:
    case = Case(Mode("full", "single"), architecture="custom", views=True)
    assert with_model(case, "custom", "").views
    assert not with_model(case, "llama", "").views


def test_nearest_trainable_changes_only_what_it_must() -> None:
    case = Case(LORA, adapter=Adapter(kind="ia3"), world_size=2)
    assert nearest_trainable(case, ("llama",), ("lora",)) is case
    experts = Case(LORA, adapter=Adapter(kind="target_parameters"), world_size=2)
    assert nearest_trainable(experts, ("mixtral",), ()).architecture == "mixtral"
    plain = nearest_trainable(experts, ("mixtral",), ("lora",))
    assert (plain.architecture, plain.adapter) == ("llama", Adapter())


def test_nearest_trainable_without_any_is_the_case_itself() -> None:
    case = Case(LORA, adapter=Adapter(kind="target_parameters"), world_size=2)
    assert nearest_trainable(case, ("qwen2",), ()) is case


def test_plan_leaves_out_what_no_claimed_model_can_be_trained_in() -> None:
    mode = Mode("full", "ep")
    assert plan(Claim("a:b"), (mode,), "survey")
    assert plan(Claim("a:b", only={"architecture": ["llama"]}), (mode,), "survey") == ()
