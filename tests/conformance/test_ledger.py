"""The ledger of what shipping savers lose: whole, rendered, and compared with reports."""

from __future__ import annotations

import ast
import dataclasses

import noxfile
import pytest
from fixtures.findings import FOLDER, compare, read_ledger
from fixtures.findings.__main__ import DOCUMENT, render

from saver_conformance.spec import SPEC

LEDGER = read_ledger()
ENTRY = LEDGER[0]


@pytest.mark.parametrize("entry", LEDGER, ids=lambda entry: entry.id)
def test_an_entry_names_musts_a_known_stack_and_a_script(entry):
    stack = noxfile.STACKS[entry.stack]
    assert entry.savers[0] in stack.savers  # its case is replayed there
    assert entry.case.mode.matches(entry.modes)
    assert all(SPEC[clause].level == "MUST" for clause in entry.clauses)
    assert entry.lost
    assert entry.workaround
    script = ast.parse(entry.script.read_text())
    roots = {
        (alias.name if isinstance(node, ast.Import) else str(node.module)).partition(".")[0]
        for node in ast.walk(script)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert not roots & {"canonical_saver", "saver_conformance", "fixtures", "tests"}


def test_every_script_has_an_entry():
    scripts = {path.stem for path in FOLDER.glob("[!_]*.py")}
    assert scripts == {entry.id for entry in LEDGER}


def test_every_saver_of_an_entry_is_judged_somewhere():
    judged = {name for stack in noxfile.STACKS.values() for name in stack.savers}
    assert {saver for entry in LEDGER for saver in entry.savers} <= judged


def test_the_document_is_what_the_ledger_says():
    assert DOCUMENT.read_text() == render(LEDGER)


def _report(saver, *broken):
    rows = [
        {"clause": clause, "mode": "full-single", "level": "MUST", "status": status}
        for clause, status in broken
    ]
    return {"saver": saver, "clauses": rows}


def test_a_report_that_shows_what_the_ledger_says_agrees():
    report = _report(ENTRY.savers[0], *((clause, "fail") for clause in ENTRY.clauses))
    assert not list(compare(report, [ENTRY]))


def test_an_unexplained_must_is_told():
    report = _report(ENTRY.savers[0], *((clause, "fail") for clause in ENTRY.clauses))
    report["clauses"][0]["clause"] = "RANKS-003"
    assert any(
        "RANKS-003 in full-single, and no entry" in line for line in compare(report, [ENTRY])
    )


def test_a_defect_that_is_gone_is_told():
    report = _report(ENTRY.savers[0], *((clause, "pass") for clause in ENTRY.clauses))
    (line,) = compare(report, [ENTRY])
    assert "fixed? then remove it" in line


def test_an_entry_is_about_its_savers_clauses_and_modes_alone():
    assert ENTRY.explains(ENTRY.savers[0], ENTRY.clauses[0], "full-ddp")
    assert not ENTRY.explains("another", ENTRY.clauses[0], "full-ddp")
    assert not ENTRY.explains(ENTRY.savers[0], "RANKS-003", "full-ddp")
    narrow = dataclasses.replace(ENTRY, modes=("full-single",))
    assert not narrow.explains(ENTRY.savers[0], ENTRY.clauses[0], "full-ddp")
