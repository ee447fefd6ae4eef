"""The page of what the suite can find names only what there is, and adds up."""

from __future__ import annotations

import re
from pathlib import Path

from fixtures.findings import read_ledger
from fixtures.mutants import all_mutants

from saver_conformance.cases import adapter_kinds, engines, families, settings
from saver_conformance.cases.axis_text import AXES
from saver_conformance.spec import SPEC

PAGE = Path(__file__).parents[2] / "docs" / "results" / "known-defects.md"


def rows() -> list[list[str]]:
    cells = [
        line.strip("|").split("|") for line in PAGE.read_text().splitlines() if line[:1] == "|"
    ]
    return [[cell.strip() for cell in row] for row in cells[2:]]


def test_numbers_of_defects_add_up_to_those_of_the_last_row() -> None:
    *kinds, every = rows()
    for column in (1, 2):
        numbers = [int(row[column]) for row in kinds if row[column].isdecimal()]
        assert sum(numbers) == int(every[column].strip("*"))
    for row in kinds:
        assert not row[2].isdecimal() or int(row[2]) <= int(row[1])


def test_every_name_in_the_table_is_one_of_something() -> None:
    known = {item.address.rpartition(":")[2] for item in all_mutants()}
    known |= {entry.id for entry in read_ledger()} | set(AXES)
    for registry in (adapter_kinds, engines, families, settings):
        known |= set(registry.names())
    known |= {"fault_injection", "file_trace", "checkpoints", "state_dict_type", "cfg"}
    known |= {"gate", "survey", "results/", "hf-trainer", "axolotl", "fixtures/mutants"}
    known |= {"nox -s findings"}
    named = {name for row in rows() for cell in row for name in re.findall("`([^`]+)`", cell)}
    assert sorted(named - known) == []


def test_every_clause_in_the_table_is_in_the_spec() -> None:
    clauses = set(re.findall(r"[A-Z]+-\d{3}", PAGE.read_text()))
    assert clauses
    assert clauses <= set(SPEC)
