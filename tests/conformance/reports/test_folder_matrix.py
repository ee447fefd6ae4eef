"""The comparison of savers tells empty folders from used ones, and counts modes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.helpers.verdicts import CLAIMED, make_finding, make_record, make_verdict

from saver_conformance.cases.case import Case, Mode
from saver_conformance.cases.strategies import make_case
from saver_conformance.reports.html import render_site
from saver_conformance.reports.matrix_markdown import by_areas
from saver_conformance.reports.report_json import to_result
from saver_conformance.reports.result import Result, Row, Share
from saver_conformance.reports.status import CellStatus, Folder, in_folder
from saver_conformance.reports.view import Cell, savers_by_areas, view_subjects
from saver_conformance.verdict.verdict import CaseRecord

EMPTY, USED = {}, {"existing_save": "single"}
MUST, SHOULD = "FILES-001", "FILES-010"


def record(
    mode: Mode, axes: dict[str, str], broken: tuple[str, ...] = (), unchecked: tuple[str, ...] = ()
) -> CaseRecord:
    """What became of a case into an empty or a used folder."""
    case = make_case(mode, axes, seed=3)
    found = make_record(mode, broken, unchecked)
    ran = {
        clause: tuple(make_finding(clause, case) for _ in findings)
        for clause, findings in found.ran.items()
    }
    return replace(found, case=case, ran=ran)


def cell(result: Result, area: str, folder: Folder) -> Cell:
    [line] = savers_by_areas(view_subjects([result]), folder).lines
    return next(item for item in line.cells if item.column == area)


@pytest.mark.parametrize(
    ("changed", "empty"),
    [
        ({}, True),
        ({"existing_save": "adapter"}, False),
        ({"foreign_files": "strangers"}, False),
        ({"after": Case(CLAIMED[0])}, False),
    ],
)
def test_a_case_knows_whether_its_folder_is_empty(changed: dict[str, object], empty: bool) -> None:
    assert replace(Case(CLAIMED[0]), **changed).saves_into_empty_folder is empty  # type: ignore[arg-type]


def test_what_breaks_in_used_folders_only_is_a_failure_there_only() -> None:
    single, zero3, _ = CLAIMED
    records = [
        record(single, EMPTY),
        record(single, USED, broken=(MUST,)),
        record(zero3, EMPTY),
        record(zero3, USED),
    ]
    result = to_result(make_verdict("a:b", records))
    empty, used = cell(result, "FILES", "empty"), cell(result, "FILES", "used")
    assert (empty.status, empty.share) == ("pass", "3/3")
    # The third mode has no case there.
    assert (used.status, used.share, used.rest) == ("fail", "1/2", "")


def test_a_deviation_does_not_hide_behind_what_is_unchecked() -> None:
    [single, zero3, _] = CLAIMED
    records = [
        record(single, EMPTY, broken=(SHOULD,), unchecked=(MUST,)),
        record(zero3, EMPTY, broken=(SHOULD,)),
    ]
    found = cell(to_result(make_verdict("a:b", records)), "FILES", "empty")
    assert (found.status, found.share, found.rest) == ("unavailable", "1/3", "deviates 2")


@pytest.mark.parametrize(
    ("status", "share", "expected"),
    [
        ("fail", Share(1, 1, 1), "fail"),
        ("fail", Share(1, 1, 0), "pass"),
        ("fail", Share(0, 1, 0), "unavailable"),
        ("fail", Share(0, 0, 0), "not tried"),
        ("deviation", Share(2, 2, 3), "deviation"),
        ("error", Share(0, 1, 0), "error"),
        ("waived", Share(0, 1, 0), "waived"),
        ("not claimed", Share(0, 0, 0), "not claimed"),
    ],
)
def test_status_of_a_row_in_one_kind_of_folder(
    status: CellStatus, share: Share, expected: CellStatus
) -> None:
    row = Row(MUST, "full-single", status, 5, 5, share.findings, "", None, share)  # type: ignore[arg-type]
    assert in_folder(row, "empty") == expected
    assert in_folder(row, "any") == status


def test_reports_that_do_not_tell_folders_apart_are_compared_over_both() -> None:
    result = to_result(make_verdict("a:b"))
    old = replace(result, rows=tuple(replace(row, empty=None) for row in result.rows))
    for text in (by_areas([old, result]), render_site([old, result])):
        assert "Into an empty folder" not in text
    for text in (by_areas([result]), render_site([result])):
        assert "Into an empty folder" in text
        assert "Into a folder in which something lies" in text


def test_numbers_of_modes_stand_in_markdown_and_on_the_page() -> None:
    records = [record(CLAIMED[0], EMPTY, broken=(MUST, SHOULD))]
    result = to_result(make_verdict("a:b", records))
    assert "| **FAIL** 1/3; deviates 1 |" in by_areas([result])
    page = render_site([result])
    assert '<span class="share">1/3</span><span class="rest-of-modes">deviates 1</span>' in page
