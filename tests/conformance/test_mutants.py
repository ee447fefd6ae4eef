"""The suite finds what each mutant breaks, and nothing else."""

import pytest
from fixtures.mutants import all_mutants

from saver_conformance.cases.case import Mode, WorldKey
from saver_conformance.cases.strategies import make_case
from saver_conformance.processes import strace
from saver_conformance.workload.version_compat import why_unable


def runs():
    """Every mutant with each of its cases, those of one world together."""
    pairs = [
        (mutant, make_case(Mode.parse(name), mutant.axes))
        for mutant in all_mutants()
        for name in mutant.modes
        # Those of these areas are in test_portable.py and test_keep.py.
        if not any(clause.startswith(("PORTABLE-", "KEEP-")) for clause in mutant.breaks)
    ]
    pairs.sort(key=lambda pair: WorldKey.of(pair[1].mode, pair[1].world_size))
    return [
        pytest.param(
            mutant, case, id=f"{mutant.address.removeprefix('fixtures.mutants.')}-{case.mode}"
        )
        for mutant, case in pairs
    ]


@pytest.mark.parametrize(("mutant", "case"), runs())
def test_mutant(shared_judge, mutant, case):
    if case.probe in ("fault_injection", "file_trace") and not strace.is_available():
        pytest.skip(strace.MISSING)
    if reason := why_unable(case):
        pytest.skip(reason)
    shared_judge.turn_to(mutant.address)
    record = shared_judge.run(case)
    assert record.status == "run", record.reason
    found = {clause: findings for clause, findings in record.ran.items() if findings}
    assert set(found) == mutant.breaks, found
    ranks = {finding.rank for finding in record.findings if finding.rank is not None}
    assert ranks == mutant.ranks, found
