"""A saver's part in checkpoints: in its source, in a file, and in the plan of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from saver_conformance.cases.case import Case, Mode
from saver_conformance.claims.checkpoint_claim import CheckpointClaim
from saver_conformance.claims.claim import Claim, claims_in
from saver_conformance.claims.claims_file import read_claims
from saver_conformance.errors import ClaimsFileError, UnknownSaverError
from saver_conformance.run import plan

SINGLE = Mode("full", "single")
CASE = Case(SINGLE, probe="checkpoints")
SOURCE = """
from saver_conformance.claims import claims

@claims("mine", checkpoints={"prepare": "a.b:c", "model": "weights", "modes": ["*-single"]})
def save(cfg, trainer, model): ...
"""
FILE = """
[checkpoints]
prepare = "a.b:c"
resumes = true
"""


def test_checkpoint_claim_is_read_from_a_decorator(tmp_path: Path) -> None:
    (tmp_path / "saving.py").write_text(SOURCE)
    (claim,) = claims_in(tmp_path / "saving.py", "saving")
    expected = CheckpointClaim(prepare="a.b:c", model="weights", modes=("*-single",))
    assert claim.checkpoints == expected


def test_checkpoint_claim_is_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "claims.toml").write_text(FILE)
    claim = read_claims(tmp_path / "claims.toml")
    assert claim.checkpoints == CheckpointClaim(prepare="a.b:c", resumes=True)
    assert Claim("mine:save").claiming(claim).checkpoints == claim.checkpoints


@pytest.mark.parametrize(
    "plain", [{"resume": True}, {"resumes": 1}, {"modes": [1]}, {"prepare": None}, "a.b:c"]
)
def test_checkpoint_claim_that_makes_no_sense_is_refused(plain: Any) -> None:
    with pytest.raises(UnknownSaverError, match="mine: checkpoints"):
        CheckpointClaim.from_plain("mine", plain)


def test_checkpoint_claim_that_makes_no_sense_in_a_file_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "claims.toml").write_text("checkpoints = true")
    with pytest.raises(ClaimsFileError, match=r"claims\.toml: checkpoints"):
        read_claims(tmp_path / "claims.toml")


@pytest.mark.parametrize(
    ("claim", "takes"),
    [
        (None, False),
        (CheckpointClaim(), True),
        (CheckpointClaim(modes=("lora-*",)), False),
    ],
)
def test_takes_checkpoints_only_where_they_are_claimed(
    claim: CheckpointClaim | None, takes: bool
) -> None:
    saver = Claim("mine:save", checkpoints=claim)
    assert saver.takes(CASE) is takes
    assert saver.takes(Case(SINGLE))
    planned = plan(saver, (SINGLE,), "gate")
    assert any(case.probe == "checkpoints" for case in planned) is takes


def test_leaves_out_resuming_where_it_is_not_claimed() -> None:
    assert Claim("mine:save", checkpoints=CheckpointClaim()).leaves_out("KEEP-007")
    assert not Claim("mine:save", checkpoints=CheckpointClaim(resumes=True)).leaves_out("KEEP-007")
    assert not Claim("mine:save").unclaimed
