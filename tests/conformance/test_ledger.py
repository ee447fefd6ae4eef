"""The ledger of what shipping savers lose: whole, rendered, and compared with reports."""

from __future__ import annotations

import dataclasses
import json
import re

import noxfile
import pytest
from fixtures.findings import (
    FOLDER,
    SEVERITIES,
    as_in_a_report,
    compare,
    content_of,
    read_ledger,
    read_recorded,
)
from fixtures.findings import _upstream as upstream
from fixtures.findings.__main__ import DOCUMENT, render

from saver_conformance.cases.case import Case
from saver_conformance.observation.finding import Finding as SuiteFinding
from saver_conformance.spec import SPEC

LEDGER = read_ledger()
RECORDED = read_recorded()
ENTRY = next(entry for entry in LEDGER if entry.id == "transformers_stale_file")
JUDGED = [entry for entry in LEDGER if entry.case is not None]


@pytest.mark.parametrize("entry", LEDGER, ids=lambda entry: entry.id)
def test_an_entry_is_whole_and_its_script_needs_the_library_alone(entry):
    assert entry.stack in noxfile.STACKS
    assert entry.severity in SEVERITIES
    assert entry.lost
    assert entry.expected
    assert entry.workaround
    assert bool(entry.no_case) != bool(entry.case)
    ours = {"canonical_saver", "saver_conformance", "fixtures", "tests"}
    assert not set(upstream.libraries(entry.script)) & ours


@pytest.mark.parametrize("entry", JUDGED, ids=lambda entry: entry.id)
def test_an_entry_with_a_case_says_where_the_suite_sees_it(entry):
    case = entry.case
    assert entry.savers[0] in noxfile.STACKS[entry.stack].savers  # its case is replayed there
    assert case.mode.matches(entry.modes)
    assert all(re.search(pattern, case.to_json()) for pattern in entry.when)
    assert len({SPEC[clause].level for clause in entry.clauses}) == 1
    used = case.existing_save != "empty" or case.foreign_files != "none" or case.after is not None
    assert used or entry.in_empty_folder


@pytest.mark.parametrize("entry", JUDGED, ids=lambda entry: entry.id)
def test_an_entry_does_not_explain_another_loss_in_a_plain_case(entry):
    mode = entry.case.mode
    plain = Case.from_json(json.dumps({"mode": mode.name, "world_size": entry.case.world_size}))
    finding = {"found": "what no one has seen yet", "case": json.loads(plain.to_json())}
    for clause in entry.clauses:
        assert not entry.explains(entry.savers[0], clause, finding), clause


def test_every_script_has_an_entry():
    scripts = {path.stem for path in FOLDER.glob("[!_]*.py")}
    assert scripts == {entry.id for entry in LEDGER}


def test_every_saver_of_an_entry_is_judged_somewhere():
    judged = {name for stack in noxfile.STACKS.values() for name in stack.savers}
    assert {saver for entry in LEDGER for saver in entry.savers} <= judged


@pytest.mark.parametrize("entry", LEDGER, ids=lambda entry: entry.id)
def test_every_script_was_run_and_showed_the_loss(entry):
    recorded = RECORDED[entry.id]
    assert recorded.said.startswith("lost: ")
    assert "python" in recorded.versions
    assert len(recorded.versions) > 1


def test_nothing_is_recorded_of_what_has_no_entry():
    assert set(RECORDED) == {entry.id for entry in LEDGER}


def test_the_document_is_what_the_ledger_says():
    assert DOCUMENT.read_text() == render(LEDGER)


def test_the_texts_to_be_filed_are_what_ledger_scripts_and_records_say():
    written = {path.name: path.read_text() for path in upstream.FOLDER.glob("*.md")}
    assert written == upstream.pages(LEDGER, RECORDED)


def test_a_text_to_be_filed_has_versions_script_and_both_outcomes():
    recorded = RECORDED[ENTRY.id]
    text = upstream.page(ENTRY, recorded)
    assert ENTRY.script.read_text().rstrip() in text
    for part in (recorded.said, ENTRY.expected, ENTRY.lost, ENTRY.workaround, ENTRY.library):
        assert part in text
    assert all(f"{name} {number}" in text for name, number in recorded.versions.items())


STALE = {"file": "model.safetensors", "found": "left by an earlier save"}
USED = json.loads(ENTRY.case.to_json())
EMPTY = {**USED, "existing_save": "empty"}


def _report(*findings, clause="FILES-005", saver=ENTRY.savers[0], level="MUST"):
    status = "fail" if findings else "pass"
    row = {"clause": clause, "mode": "full-single", "level": level, "status": status}
    clauses = [{**row, "findings": list(findings)}]
    return {"saver": saver, "clauses": clauses, "not_run": [], "totals": {"executed": 1}}


def test_compare_a_report_that_shows_what_the_ledger_says_agrees():
    assert not list(compare(_report({**STALE, "case": USED}), [ENTRY]))


def test_compare_an_unexplained_clause_is_told():
    report = _report({**STALE, "case": USED}, clause="RANKS-003")
    lines = list(compare(report, [ENTRY]))
    assert "breaks RANKS-003 in full-single, and no entry says why: 1 of 1" in lines[0]


def test_compare_another_loss_of_the_same_clause_and_mode_is_told_by_its_content():
    other = {"file": "adapter_model.safetensors", "found": "left by an earlier save", "case": USED}
    (line,) = compare(_report({**STALE, "case": USED}, other), [ENTRY])
    assert "1 of 2 findings" in line
    assert "adapter_model.safetensors | left by an earlier save" in line


def test_compare_the_same_loss_in_an_empty_folder_is_another_one():
    lines = list(compare(_report({**STALE, "case": EMPTY}), [ENTRY]))
    assert "and no entry says why" in lines[0]


def test_compare_a_case_without_what_the_entry_needs_is_another_one():
    unlimited = {**USED, "max_shard_size": None}
    lines = list(compare(_report({**STALE, "case": unlimited}), [ENTRY]))
    assert "and no entry says why" in lines[0]


def test_compare_a_should_needs_no_entry_and_can_show_one():
    report = _report({**STALE, "case": USED}, level="SHOULD")
    assert not list(compare(report, [ENTRY]))
    assert not list(compare(_report({"found": "?", "case": USED}, saver="x", level="SHOULD"), []))


def test_compare_a_defect_that_is_gone_is_told():
    (line,) = compare(_report(), [ENTRY])
    assert "fixed? then remove it" in line


def test_compare_what_no_survey_shows_is_not_missed_there():
    alone = dataclasses.replace(ENTRY, in_survey=False)
    assert not list(compare(_report(), [alone]))
    assert not list(compare(_report({**STALE, "case": USED}), [alone]))


def test_compare_a_case_that_went_wrong_is_told_and_one_that_cannot_be_trained_is_not():
    row = {"case": {"mode": "lora-zero3"}, "status": "unavailable", "reason": "why"}
    assert not list(compare({**_report(), "not_run": [row]}, []))
    (line,) = compare({**_report(), "not_run": [{**row, "status": "error"}]}, [])
    assert "not judged in a case of lora-zero3: why" in line


def test_compare_a_report_of_no_case_is_told():
    (line,) = compare({**_report(), "totals": {"executed": 0}}, [])
    assert "judged in no case" in line


def test_explains_an_entry_is_about_its_savers_and_modes_alone():
    finding = {**STALE, "case": USED}
    assert ENTRY.explains(ENTRY.savers[0], "FILES-005", finding)
    assert not ENTRY.explains("another", "FILES-005", finding)
    narrow = dataclasses.replace(ENTRY, modes=("full-ddp",))
    assert not narrow.explains(ENTRY.savers[0], "FILES-005", finding)


def test_as_in_a_report_has_what_was_lost_and_where():
    found = SuiteFinding(
        expected="returns",
        found="it raised",
        ended="KeyError: 'a'",
        place="save.py:3",
        rank=1,
        clause="RANKS-002",
        case=ENTRY.case,
    )
    plain = as_in_a_report(found)
    assert content_of(plain) == "it raised | KeyError: 'a' | save.py:3"
    assert plain["case"] == json.loads(ENTRY.case.to_json())
