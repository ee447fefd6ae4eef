"""The suite accuses no correct saver, however unusual."""

import pytest
from fixtures.oddities import all_oddities

from saver_conformance.cases.case import Mode, WorldKey
from saver_conformance.cases.strategies import make_case
from saver_conformance.processes import strace
from saver_conformance.spec import SPEC


def runs():
    """Every oddity with each of its cases, those of one world together."""
    pairs = [
        (oddity, make_case(Mode.parse(name), oddity.axes))
        for oddity in all_oddities()
        for name in oddity.modes
    ]
    pairs.sort(key=lambda pair: WorldKey.of(pair[1].mode, pair[1].world_size))
    return [
        pytest.param(
            oddity, case, id=f"{oddity.address.removeprefix('fixtures.oddities.')}-{case.mode}"
        )
        for oddity, case in pairs
    ]


@pytest.mark.parametrize(("oddity", "case"), runs())
def test_oddity(shared_judge, oddity, case):
    if case.probe in ("fault_injection", "file_trace") and not strace.is_available():
        pytest.skip(strace.MISSING)
    shared_judge.turn_to(oddity.address)
    record = shared_judge.run(case)
    assert record.status == "run", record.reason
    found = {clause: findings for clause, findings in record.ran.items() if findings}
    assert set(found) == oddity.deviates, found
    assert record.blocked == {}


def test_oddities_deviate_from_shoulds_alone():
    for oddity in all_oddities():
        assert all(SPEC[clause].level == "SHOULD" for clause in oddity.deviates)
