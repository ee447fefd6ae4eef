"""The table of the terminal: readable at every width, and no mode is ever cut."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from tests.helpers.verdicts import CLAIMED, NOT_PLANNED, make_record, make_verdict

from saver_conformance.cases.case import MODES, Case
from saver_conformance.reports import terminal
from saver_conformance.reports.terminal import LiveProgress, make_console, print_verdict
from saver_conformance.spec import AREAS
from saver_conformance.verdict.verdict import Verdict


def every_status() -> Verdict:
    """All modes and all areas, with everything that a field can say."""
    single, zero3, lora = CLAIMED
    records = [
        make_record(single, broken=("FILES-005", "FILES-010", "FORMAT-007")),
        make_record(zero3, broken=("FORMAT-010",), unchecked=("TENSOR-001", "RELOAD-004")),
        make_record(lora, status="error"),
    ]
    return make_verdict("framework.integrations.saving:save_trained_model", records, modes=MODES)


def table_of(verdict: Verdict, width: int) -> str:
    """What stands before the first finding."""
    text = io.StringIO()
    print_verdict(Console(file=text, width=width, highlight=False), verdict)
    return text.getvalue().partition("\n\n")[0]


@pytest.mark.parametrize("width", [200, 120, 105, 100, 90, 80, 60, 40])
def test_modes_are_never_cut(width: int) -> None:
    shown = table_of(every_status(), width)
    for mode in MODES:
        assert any(mode.name in line.replace("│", " ").split() for line in shown.splitlines())
    assert "…" not in shown


@pytest.mark.parametrize("width", [200, 120, 100, 80])
def test_a_table_fits_and_has_every_area(width: int) -> None:
    lines = table_of(every_status(), width).splitlines()
    assert all(len(line.rstrip()) <= width for line in lines)
    named = [area for area in AREAS if any(area in line for line in lines)]
    assert named == [area for area in AREAS if area not in NOT_PLANNED]


def test_a_conforming_saver_has_a_table_of_80_columns() -> None:
    verdict = make_verdict("pkg.mod:save", [make_record(mode) for mode in CLAIMED])
    lines = table_of(verdict, 80).splitlines()
    head = next(line.split() for line in lines if "mode" in line.split())
    assert head[1:-1] == [area for area in AREAS if area in head]


@pytest.mark.parametrize("width", [200, 80, 40])
def test_words_are_those_of_the_pages_at_every_width(width: int) -> None:
    shown = " ".join(table_of(every_status(), width).replace("│", " ").split())
    for word in ("FAIL", "deviates", "unchecked", "error", "pass"):
        assert word in shown
    for word in ("unch.", "dev.", "wvd.", "n.t.", "n.c.", "n/a"):
        assert word not in shown


def test_the_width_follows_the_terminal_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert make_console().width == terminal.PLAIN_WIDTH
    monkeypatch.setenv("COLUMNS", "80")
    assert make_console().width == 80


def test_the_first_words_come_before_anything_is_planned() -> None:
    text = io.StringIO()
    with LiveProgress(Console(file=text, width=200), "gate", "pkg:save") as progress:
        assert text.getvalue() == "gate of pkg:save\n"
        progress.plan(984)
        assert text.getvalue().endswith("984 cases, starting ranks\n")
        progress.train(Case(MODES[0]))
