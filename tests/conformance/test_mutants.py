"""The suite finds what each mutant breaks, and nothing else."""

import pytest
from fixtures.mutants import all_mutants

from saver_conformance.case import Mode
from saver_conformance.judge import Judge
from saver_conformance.strategies import make_case
from saver_conformance.world import WorldKey

SAVE_LIMIT = 15.0
"""Seconds; enough for a tiny save on a busy machine, and what a mutant that sleeps costs."""


class SharedJudge(Judge):
    """A judge whose worlds go from one saver to the next; starting them takes most of the time."""

    def turn_to(self, saver):
        self._saver = saver
        for world in self._worlds.values():
            assert all(answer.status == "returned" for answer in world.load(saver))


@pytest.fixture(scope="module")
def judge():
    with SharedJudge("canonical_saver:save_trained_model", save_limit=SAVE_LIMIT) as shared:
        yield shared


def runs():
    """Every mutant with each of its cases, those of one world together."""
    pairs = [
        (mutant, make_case(Mode.parse(name), mutant.axes))
        for mutant in all_mutants()
        for name in mutant.modes
    ]
    pairs.sort(key=lambda pair: WorldKey.of(pair[1].mode, pair[1].world_size))
    return [
        pytest.param(
            mutant, case, id=f"{mutant.address.removeprefix('fixtures.mutants.')}-{case.mode}"
        )
        for mutant, case in pairs
    ]


@pytest.mark.parametrize(("mutant", "case"), runs())
def test_mutant(judge, mutant, case):
    judge.turn_to(mutant.address)
    record = judge.judge(case)
    assert record.status == "run", record.reason
    found = {clause: findings for clause, findings in record.ran.items() if findings}
    assert set(found) == mutant.breaks, found
    ranks = {finding.rank for finding in record.findings if finding.rank is not None}
    assert ranks == mutant.ranks, found
