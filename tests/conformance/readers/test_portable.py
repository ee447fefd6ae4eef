"""The suite catches each mutant of portability, by the files or by a reader that suffers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures.mutants import Mutant, all_mutants

from saver_conformance.cases.case import Case, Mode
from saver_conformance.cases.strategies import make_case
from saver_conformance.execution.case_readers import CaseReaders
from saver_conformance.execution.case_runner import CaseRunner
from saver_conformance.readers.reader import read_reader
from saver_conformance.spec import SPEC

PROGRAM = Path(__file__).parents[2] / "helpers/plain_reader.py"
AREA = "PORTABLE-"
MUTANTS = [
    mutant
    for mutant in sorted(all_mutants(), key=lambda mutant: mutant.address)
    if any(clause.startswith(AREA) for clause in mutant.breaks)
]


def case_of(mutant: Mutant) -> Case:
    return make_case(Mode.parse(mutant.modes[0]), {"tokenizer": "chat", **mutant.axes})


class Judge(CaseRunner):
    """A judge whose world goes from one saver to the next."""

    def turn_to(self, saver: str) -> None:
        self._worlds.load(saver)


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    saver = "canonical_saver:save_trained_model"
    readers = CaseReaders([read_reader(PROGRAM)], map(case_of, MUTANTS))
    with Judge(saver, readers=readers) as made:
        yield made


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.address.partition(":")[2])
def test_mutant_of_portability_is_caught(judge: Judge, mutant: Mutant) -> None:
    judge.turn_to(mutant.address)
    record = judge.run(case_of(mutant))
    assert record.status == "run", record.reason
    found = {clause for clause, findings in record.ran.items() if findings}
    assert mutant.breaks <= found
    # What the format lacks is a deviation of every saver that leaves it at that.
    musts = {clause for clause in found if SPEC[clause].level == "MUST"}
    assert musts == {clause for clause in mutant.breaks if SPEC[clause].level == "MUST"}, record.ran


def test_right_saver_is_accused_of_nothing_by_a_careless_reader(judge: Judge) -> None:
    judge.turn_to("canonical_saver:save_trained_model")
    record = judge.run(make_case(Mode.parse("full-single"), {"tokenizer": "chat"}))
    found = [finding for finding in record.findings if SPEC[finding.clause].level == "MUST"]
    assert found == []
    assert {"PORTABLE-009", "PORTABLE-010", "PORTABLE-011"} <= set(record.ran)
    (comparison,) = record.comparisons
    outcomes = {part.name: part.outcome for part in comparison.saved.parts}
    assert (outcomes["chat"], outcomes["digests"]) == ("right", "right")
    assert comparison.saved.parts == comparison.plain.parts
