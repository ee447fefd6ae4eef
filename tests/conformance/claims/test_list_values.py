"""Values of axes that are tuples in a case and lists in a claim."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from saver_conformance.cases.case import Mode
from saver_conformance.cases.profiles import cases_of
from saver_conformance.claims import Claim
from saver_conformance.claims.claims_file import read_claims
from saver_conformance.claims.known_savers import find_claim

SOURCE = """
from saver_conformance.claims import claims
@claims("mine", only={only})
def save(cfg, trainer, model): ...
"""


def in_source(folder: Path, only: str) -> Claim:
    (folder / "mine.py").write_text(SOURCE.format(only=only))
    return find_claim("mine:save", folder)


def in_a_file(folder: Path, only: str) -> Claim:
    lines = (f"{name} = {json.dumps(values)}" for name, values in json.loads(only).items())
    (folder / "claims.toml").write_text("\n".join(["[only]", *lines]))
    return read_claims(folder / "claims.toml")


@pytest.mark.parametrize("read", [in_source, in_a_file])
@pytest.mark.parametrize(
    "only", ['{"names": [["default"]]}', '{"modules_to_save": [["lm_head"], []]}']
)
def test_fit_list_values_of_a_claim_are_those_of_cases(read, only: str, tmp_path: Path) -> None:
    claim = read(tmp_path, only)
    [(name, values)] = claim.only.items()
    fitted = {claim.fit(case) for case in cases_of(Mode("lora", "single"), "survey")}
    assert {getattr(case.adapter, name) for case in fitted} <= set(values)
