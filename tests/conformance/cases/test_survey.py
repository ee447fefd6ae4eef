"""The survey begins with what is trained most, and has what savers are known to lose things by."""

from __future__ import annotations

from itertools import pairwise

import pytest

from saver_conformance.cases.case import MODES, Case, Mode, WorldKey
from saver_conformance.claims.claim import Claim
from saver_conformance.run import plan


def survey() -> tuple[Case, ...]:
    return plan(Claim("a:b"), MODES, "survey")


def test_survey_begins_with_lora_and_checkpointing_under_fsdp2() -> None:
    first = survey()[0]
    assert (first.mode, first.wrapper) == (Mode("lora", "fsdp2"), "checkpointing")


@pytest.mark.parametrize(
    ("mode", "name", "value"),
    [
        ("lora-fsdp2", "wrapper", "checkpointing"),
        ("full-fsdp1", "setting", "sharded-state-dict"),
        ("full-fsdp2", "setting", "sharded-state-dict"),
        ("full-zero3", "setting", "no-gather"),
    ],
)
def test_survey_tries_what_savers_are_known_to_lose_weights_by(
    mode: str, name: str, value: str
) -> None:
    assert value in {getattr(case, name) for case in survey() if case.mode.name == mode}


@pytest.mark.parametrize("claim", [Claim("a:b"), Claim("a:b", modes=("full-*",))])
def test_survey_neighbours_share_a_world_and_a_mode(claim: Claim) -> None:
    modes = [mode for mode in MODES if mode.matches(claim.modes)]
    for key in (lambda case: WorldKey.of(case.mode, case.world_size, case.nodes), lambda c: c.mode):
        keys = [key(case) for case in plan(claim, modes, "survey")]
        assert sum(before != after for before, after in pairwise(keys)) == len(set(keys)) - 1
