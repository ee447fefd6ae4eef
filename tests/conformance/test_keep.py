"""The suite finds what each saver of checkpoints loses, and accuses none that loses nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures.mutants import Mutant, all_mutants

from saver_conformance.cases.case import Case, Mode, WorldKey
from saver_conformance.cases.strategies import make_case
from saver_conformance.claims.checkpoint_claim import CheckpointClaim
from saver_conformance.claims.known_savers import find_claim
from saver_conformance.execution.case_runner import CaseRunner
from saver_conformance.processes import strace
from saver_conformance.run import REFERENCE

ROOT = Path(__file__).parents[2]
AREA = "KEEP-"
OF_CUTS = {"KEEP-003", "KEEP-004"}
CUTS = 3


class Judge(CaseRunner):
    """A judge whose worlds go from one saver to the next."""

    def make_ready(self, case: Case) -> None:
        with contextlib.chdir(ROOT):
            super().make_ready(case)

    def turn_to(self, saver: str, claim: CheckpointClaim | None, points: int = 0) -> None:
        self._worlds.load(saver)
        self._checkpoints, self._crash_points = claim, points


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with Judge(REFERENCE) as made:
        yield made


def case_of(mode: str) -> Case:
    return make_case(Mode.parse(mode), {"probe": "checkpoints"})


def mutants() -> list[tuple[Mutant, str]]:
    """Every mutant of this area with each of its modes, those of one world together."""
    found = [
        (mutant, mode)
        for mutant in all_mutants()
        if any(clause.startswith(AREA) for clause in mutant.breaks)
        for mode in mutant.modes
    ]

    def world(pair: tuple[Mutant, str]) -> WorldKey:
        case = case_of(pair[1])
        return WorldKey.of(case.mode, case.world_size)

    return sorted(found, key=world)


def broken(judge: Judge, case: Case) -> set[str]:
    record = judge.run(case)
    assert record.status == "run", record.reason
    return {clause for clause, findings in record.ran.items() if findings}


@pytest.mark.parametrize(
    ("mutant", "mode"),
    mutants(),
    ids=lambda value: value if isinstance(value, str) else value.address.partition(":")[2],
)
def test_mutant_of_checkpoints_breaks_what_it_declares(
    judge: Judge, mutant: Mutant, mode: str
) -> None:
    cuts = CUTS if mutant.breaks & OF_CUTS else 0
    if cuts and not strace.is_available():
        pytest.skip(strace.MISSING)
    claim = CheckpointClaim(prepare=f"{mutant.address}.checkpoints", resumes=True)
    judge.turn_to(mutant.address, claim, cuts)
    assert broken(judge, case_of(mode)) == mutant.breaks


@pytest.mark.parametrize(("mode", "cuts"), [("full-single", CUTS), ("lora-single", 0)])
def test_callback_of_the_reference_breaks_nothing(judge: Judge, mode: str, cuts: int) -> None:
    claim = find_claim(REFERENCE, ROOT).checkpoints
    assert claim is not None
    judge.turn_to(REFERENCE, claim, cuts)
    record = judge.run(case_of(mode))
    assert record.status == "run", record.reason
    assert record.findings == ()
    expected = {"KEEP-001", "KEEP-002", "KEEP-005", "KEEP-006", "KEEP-007"}
    assert expected <= set(record.ran)


def test_checkpoints_of_the_trainer_itself_are_not_safe(judge: Judge) -> None:
    if not strace.is_available():
        pytest.skip(strace.MISSING)
    judge.turn_to(REFERENCE, CheckpointClaim(resumes=True), CUTS)
    assert broken(judge, case_of("full-single")) == {"KEEP-004", "KEEP-005"}


def test_saver_without_a_part_in_checkpoints_is_not_accused(judge: Judge) -> None:
    judge.turn_to(REFERENCE, None)
    record = judge.run(case_of("full-single"))
    assert record.findings == ()
    assert "claims no part" in record.blocked["KEEP-001"]
