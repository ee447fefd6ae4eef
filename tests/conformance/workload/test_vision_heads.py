"""Heads of models that are given images: where published checkpoints have them, and where not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from saver_conformance.cases.case import Case, Mode
from saver_conformance.cases.families import families
from saver_conformance.observation.observation import Expectation, Tensor
from saver_conformance.workload.hub_names import to_hub
from saver_conformance.workload.models import STOP_TOKENS, make_config
from saver_conformance.workload.oracle import Names
from saver_conformance.workload.prepare import expect

HEAD, EMBEDDING = "lm_head.weight", "model.language_model.embed_tokens.weight"
ON_DISK = "language_model.model.embed_tokens.weight"
VALUES = {HEAD: Tensor("F32", (1,), b"head"), EMBEDDING: Tensor("F32", (1,), b"embd")}


def expectation(family: str, tied: Mapping[str, str], folder: Path) -> Expectation:
    """What belongs in the save of a model whose head is contrary to its configuration."""
    case = Case(
        Mode("full", "single"), architecture=family, tie="contrary", generation="contradictory"
    )
    parameters = tuple(name for name in VALUES if name not in tied)
    names = Names(parameters, frozenset(parameters), (), tied, (), frozenset())
    model = SimpleNamespace(
        config=make_config(case), generation_config=SimpleNamespace(**{STOP_TOKENS: [2, 3]})
    )
    return expect(case, folder, model, names, VALUES, {})


@pytest.mark.parametrize(
    ("family", "head"), [("llava", f"language_model.{HEAD}"), ("gemma3", HEAD)]
)
def test_to_hub_names_the_head_as_published_checkpoints_do(family: str, head: str) -> None:
    found = to_hub(families()[family], VALUES)
    assert found == {head: VALUES[HEAD], ON_DISK: VALUES[EMBEDDING]}


def test_expect_lets_a_save_have_a_head_tied_at_run_time_by_its_name_on_disk(tmp_path) -> None:
    expected = expectation("llava", {HEAD: EMBEDDING}, tmp_path)
    assert set(expected.tensors) == {ON_DISK}
    assert expected.optional == {f"language_model.{HEAD}"}
    assert "tie_word_embeddings" not in expected.config


def test_expect_demands_a_head_that_was_untied_under_its_own_name(tmp_path: Path) -> None:
    expected = expectation("gemma3", {}, tmp_path)
    assert set(expected.required) == {HEAD, ON_DISK}
    assert expected.tensors[HEAD] == VALUES[HEAD]
    assert expected.in_memory == {ON_DISK: EMBEDDING}
