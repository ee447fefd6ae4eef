"""All views of a result say the same words of the same clause."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args
from xml.etree import ElementTree as ET

import pytest
from tests.helpers.verdicts import CLAIMED, make_record, make_verdict

from saver_conformance.folder_check.audit import Audit, ClauseAudit
from saver_conformance.folder_check.folder import WHOLE_CASE
from saver_conformance.observation.finding import Defect
from saver_conformance.reports import junit
from saver_conformance.reports.audit_text import describe
from saver_conformance.reports.outcome import outcome_of
from saver_conformance.reports.report_json import to_result
from saver_conformance.reports.result import Result, Row
from saver_conformance.reports.status import MEANINGS, WORDS, WORST_FIRST
from saver_conformance.spec import SPEC
from saver_conformance.verdict.verdict import UNCHECKED, Status

MODE = CLAIMED[0].name
MUST, SHOULD = "FILES-001", "FILES-010"


def result_with(clause: str, status: Status, reason: str = "") -> Result:
    """A result in which one clause has a status, and a finding."""
    result = to_result(make_verdict("a:b", [make_record(CLAIMED[0], broken=(clause,))]))

    def changed(row: Row) -> Row:
        here = (row.clause, row.mode) == (clause, MODE)
        return replace(row, status=status, reason=reason) if here else row

    return replace(result, rows=tuple(map(changed, result.rows)))


def test_words_are_one_table_of_all_statuses() -> None:
    assert set(get_args(Status)) < set(WORST_FIRST) == set(WORDS) == set(MEANINGS)
    assert len(set(WORDS.values())) == len(WORDS)


@pytest.mark.parametrize(
    ("clause", "status", "kind"),
    [
        (MUST, "pass", "passed"),
        (MUST, "fail", "failed"),
        (SHOULD, "deviation", "skipped"),
        (MUST, "waived", "skipped"),
        (MUST, "not claimed", "skipped"),
        (MUST, "unavailable", "error"),
        (SHOULD, "unavailable", "skipped"),
        (MUST, "error", "error"),
    ],
)
def test_outcome_of_a_status_is_the_same_for_junit(clause: str, status: Status, kind: str) -> None:
    result = result_with(clause, status, f"{UNCHECKED}no library" if kind == "error" else "")
    outcome = outcome_of(result, clause, MODE)
    assert (outcome.kind, outcome.status) == (kind, status)
    assert outcome.message.startswith(f"{WORDS[status]}: ")
    assert UNCHECKED not in outcome.message
    root = ET.fromstring(junit.render(result).partition("?>")[2])
    [test] = root.findall(f"testsuite[@name='{MODE}']/testcase[@name='{clause}']")
    tags = [(child.tag, child.get("message", "")) for child in test]
    if kind == "passed":
        assert tags == []
    elif kind == "failed":
        assert tags == [("failure", SPEC[clause].text)]
    else:
        assert tags == [(kind, f"{outcome.message} ({SPEC[clause].text})")]


def test_outcome_of_a_clause_without_a_row_is_not_tried() -> None:
    outcome = outcome_of(result_with(MUST, "pass"), "CRASH-001", MODE)
    assert outcome.message == f"{WORDS['not tried']}: {MEANINGS['not tried']}"
    assert outcome.kind == "skipped"


def audit_of(**clauses: ClauseAudit) -> Audit:
    named = {clause.replace("_", "-"): result for clause, result in clauses.items()}
    return Audit(Path("saved"), ("single",), 3, 10, named, {})


def test_describe_of_an_audit_has_the_labels_and_words_of_the_terminal() -> None:
    finding = Defect("this", "that", file="model.safetensors", offset=8).finding(MUST, WHOLE_CASE)
    found = audit_of(
        FILES_001=ClauseAudit([finding], 2), FORMAT_002=ClauseAudit(blocked="no weights")
    )
    text = "\n".join(describe(found))
    assert f"{MUST} (MUST) {SPEC[MUST].text}\n" in text
    assert "  where:    file model.safetensors, offset 8\n" in text
    assert "  expected: this\n  found:    that\n  in all:   2 findings" in text
    assert "unchecked: FORMAT-002\n  because:  no weights" in text
    assert text.endswith("defects in the structure: 1 MUST is broken, 1 MUST is unchecked")
    assert "replay" not in text


def test_describe_of_an_audit_that_could_not_check_names_no_defect() -> None:
    text = "\n".join(describe(audit_of(FORMAT_002=ClauseAudit(blocked="no weights"))))
    assert text.endswith("no verdict on the structure: 1 MUST is unchecked")
