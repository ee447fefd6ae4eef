"""What a person sees: progress while it works, then a table of modes by areas and the findings."""

from __future__ import annotations

import os
import textwrap
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from saver_conformance.case import Case, Mode
from saver_conformance.page.conclusion import (
    WORDS,
    WORST_FIRST,
    Shown,
    in_area,
    in_mode_and_area,
    of_clause,
    sentence,
)
from saver_conformance.page.plain import (
    INDENT,
    clause_ranges,
    evidence_parts,
    failure_heading,
    failure_lines,
    unchecked,
)
from saver_conformance.page.result import Cause, Evidence, Failure, Result
from saver_conformance.report import to_result
from saver_conformance.shown import count, excerpt
from saver_conformance.stopwatch import STEPS
from saver_conformance.verdict import (
    BROKEN,
    CONFORMS,
    HARNESS_FAILED,
    INCONCLUSIVE,
    CaseRecord,
    Verdict,
)

FOUND_LINES = 24
"""Lines of a finding's detail that are shown; ``report.json`` has all of them."""
LATER_LINES = 6
"""The same, from the second clause on."""
SHOWN_CAUSES = 8
"""Clauses that are told in full; a saver that breaks many breaks most for one reason."""
SHOWN_FAILURES = 8
"""Failures of whole saves that are told."""
PLAIN_WIDTH = 120
"""Columns of the output when it does not go to a terminal and COLUMNS says nothing."""

_STYLES: dict[Shown, str] = {
    "fail": "bold red",
    "error": "bold yellow",
    "unavailable": "yellow",
    "deviation": "cyan",
    "waived": "cyan",
    "pass": "green",
    "not tried": "dim",
    "not claimed": "dim",
    "no demand": "dim",
}
_SHORT: dict[Shown, str] = {
    "unavailable": "unch.",
    "deviation": "dev.",
    "waived": "wvd.",
    "not tried": "n.t.",
    "not claimed": "n.c.",
    "no demand": "-",
}
"""Words of the table where there is no room for those of the pages; told below it."""
_EMPTY: tuple[Shown, ...] = ("no demand", "not tried", "not claimed")
"""Statuses of an area that gets no column."""
_VERDICT_STYLES = {
    CONFORMS: "bold green",
    BROKEN: "bold red",
    INCONCLUSIVE: "bold yellow",
    HARNESS_FAILED: "bold yellow",
}


def make_console() -> Console:
    """A console on stdout; as wide as a report needs where nobody says how wide it is."""
    console = Console(highlight=False)
    if console.is_terminal or os.environ.get("COLUMNS", "").isdigit():
        return console
    return Console(highlight=False, width=PLAIN_WIDTH)


class LiveProgress:
    """A bar on a terminal; elsewhere a line when a mode begins and one for each failure."""

    def __init__(self, console: Console, profile: str = "run", saver: str = "") -> None:
        """Show on ``console`` how ``profile`` goes on, of the saver with this name."""
        self._console = console
        self._what = f"{profile} of {saver}" if saver else profile
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("starting")
        self._mode: Mode | None = None
        self._started = time.monotonic()
        self._planned = self._done = 0
        self._told: set[tuple[Mode, str]] = set()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def plan(self, cases: int) -> None:
        """Show how many cases are planned, before the first rank is started."""
        self._planned = cases
        number = count(cases, "case") if cases else "cases without end"
        self._console.print(f"{self._what}: {number}, starting ranks", markup=False)
        self._bar.update(self._task, total=cases or None)

    def train(self, case: Case) -> None:
        """Show the mode at work."""
        self._bar.update(self._task, description=case.mode.name)
        if case.mode != self._mode and not self._console.is_terminal:
            seconds = time.monotonic() - self._started
            of = f"/{self._planned}" if self._planned else ""
            self._console.print(f"{seconds:6.1f} s  {self._done}{of} cases  {case.mode}")
        self._mode = case.mode

    def finish(self, record: CaseRecord) -> None:
        """Count the case, and name the clauses that it is the first of its mode to break."""
        self._done += 1
        self._bar.advance(self._task)
        broken = [
            clause
            for clause, findings in record.ran.items()
            if findings and (record.case.mode, clause) not in self._told
        ]
        self._told.update((record.case.mode, clause) for clause in broken)
        if broken:
            self._console.print(f"  {record.case.mode}: {', '.join(broken)}")
        elif record.status == "error":
            self._console.print(f"  {record.case.mode}: the harness failed")


def print_verdict(
    console: Console, verdict: Verdict, report: Path | None = None, *, verbose: bool = False
) -> None:
    """Print the table, what failed, what was not checked, and the verdict with its reason.

    Args:
        console: where to.
        verdict: what to print.
        report: the folder of the report, if there is to be one.
        verbose: whether the suite's own speed and coverage are printed too.
    """
    result = to_result(verdict)
    _print_table(console, result, _cases_by_mode(verdict))
    for number, failure in enumerate(result.failures):
        if number == SHOWN_FAILURES:
            left = count(len(result.failures) - number, "other failure")
            _print_rest(console, left, report)
            break
        _print_failure(console, result, failure)
    _print_causes(console, result, report)
    _print_unchecked(console, result)
    _print_not_run(console, result)
    _print_waivers(console, result)
    _print_not_tried(console, result)
    if verbose:
        _print_pace(console, verdict)
        _print_pairs(console, verdict)
    _print_conclusion(console, result)


def _cases_by_mode(verdict: Verdict) -> dict[str, str]:
    """How many of the planned cases of each mode were run."""
    told = {}
    for mode in verdict.modes:
        records = [record for record in verdict.records if record.case.mode == mode]
        run = sum(record.status == "run" for record in records)
        told[mode.name] = f"{run}/{len(records)}"
    return told


def _print_table(console: Console, result: Result, cases: Mapping[str, str]) -> None:
    """Print modes by areas in the widest form that there is room for; modes are never cut."""
    areas = [area for area in result.areas if in_area(result, area) not in _EMPTY]
    statuses = {
        mode: [in_mode_and_area(result, mode, area) for area in areas] for mode in result.modes
    }
    title = escape(f"{result.saver}, {result.profile}")
    wide = Table(title=title, title_justify="left")
    narrow = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for table, words in ((wide, WORDS), (narrow, {**WORDS, **_SHORT})):
        table.add_column("mode", no_wrap=True)
        for area in areas:
            table.add_column(area, no_wrap=True, justify="center" if table is wide else "left")
        table.add_column("cases", no_wrap=True, justify="right")
        for mode, found in statuses.items():
            table.add_row(mode, *(Text(words[item], _STYLES[item]) for item in found), cases[mode])
    narrow.padding = (0, 1, 0, 0)
    if _fits(console, wide):
        console.print(wide)
    elif _fits(console, narrow):
        console.print(narrow)
        used = {status for found in statuses.values() for status in found}
        if legend := [f"{_SHORT[item]} {WORDS[item]}" for item in _SHORT if item in used]:
            console.print(", ".join(legend), style="dim")
    else:
        console.print(title)
        for mode, found in statuses.items():
            parts = [f"{WORDS[item]} {area}" for item, area in zip(found, areas, strict=True)]
            console.print(f"[bold]{mode}[/] {cases[mode]}: {', '.join(parts)}")


def _fits(console: Console, table: Table) -> bool:
    """Whether nothing of ``table`` has to be cut."""
    unlimited = console.options.update(max_width=1000)
    return Measurement.get(console, unlimited, table).maximum <= console.width


def _print_failure(console: Console, result: Result, failure: Failure) -> None:
    clause = "" if failure.kind == "changed nothing" else f" ({failure.clause})"
    console.print(f"\n[bold red]{failure_heading(failure)}[/]{clause}")
    for line in failure_lines(result, failure):
        console.print(f"  {line}", markup=False)
    if failure.kind != "changed nothing":
        _print_evidence(console, failure.example, FOUND_LINES)


def _print_causes(console: Console, result: Result, report: Path | None) -> None:
    told = {item.clause for item in result.failures if item.kind != "changed nothing"}
    causes = [
        (cause, status)
        for clause, cause in result.causes.items()
        if (status := of_clause(result, result.clauses[clause])) in ("fail", "deviation")
        and clause not in told
    ]
    causes.sort(key=lambda item: WORST_FIRST.index(item[1]))
    for number, (cause, _) in enumerate(causes[:SHOWN_CAUSES]):
        _print_cause(console, result, cause, LATER_LINES if number else FOUND_LINES)
    if rest := causes[SHOWN_CAUSES:]:
        _print_rest(console, clause_ranges(cause.clause for cause, _ in rest), report)


def _print_cause(console: Console, result: Result, cause: Cause, lines: int) -> None:
    clause = result.clauses[cause.clause]
    console.print(f"\n[bold]{clause.id}[/] ({clause.level}) {escape(clause.text)}")
    _print_evidence(console, cause.example, lines)
    if cause.findings > 1:
        found = f"{count(cause.findings, 'finding')} in {count(cause.cases, 'case')}"
        _print_labelled(console, "in all:", f"{found} of {', '.join(cause.modes)}")


def _print_rest(console: Console, what: str, report: Path | None) -> None:
    where = f"see {report}" if report else "--report DIR tells how"
    console.print(f"\nalso broken, {where}: {what}", markup=False)


def _print_evidence(console: Console, evidence: Evidence, lines: int) -> None:
    shorter = replace(
        evidence, expected=excerpt(evidence.expected, lines), found=excerpt(evidence.found, lines)
    )
    for label, text in evidence_parts(shorter):
        if label == "replay":  # one line, however long: it is there to be copied
            console.print(f"  {label + ':':{INDENT}}{text}", markup=False, soft_wrap=True)
        else:
            _print_labelled(console, f"{label}:", text)


def _print_labelled(console: Console, label: str, text: str) -> None:
    """Print ``text`` behind its label, what does not fit below where it begins."""
    width = max(console.width - 2 - INDENT, 20)
    for line in text.splitlines() or [""]:
        for part in textwrap.wrap(line, width) or [""]:
            console.print(f"  {label:{INDENT}}{part}", markup=False, soft_wrap=True)
            label = ""


def _print_unchecked(console: Console, result: Result) -> None:
    for item in unchecked(result):
        what = f"{clause_ranges(item.clauses)} in {', '.join(item.modes)}"
        console.print(f"\n[yellow]unchecked[/]: {what}")
        _print_labelled(console, "because:", excerpt(item.reason, LATER_LINES))


def _print_not_run(console: Console, result: Result) -> None:
    for item in result.not_run:
        modes = ", ".join(item.modes)
        console.print(f"\n[yellow]{count(item.cases, 'case')} not run[/], {item.status} ({modes})")
        _print_labelled(console, "because:", item.reason)
        if item.status == "error":
            console.print(f"  {'replay:':{INDENT}}{item.replay}", markup=False, soft_wrap=True)


def _print_waivers(console: Console, result: Result) -> None:
    for row in result.rows:
        if row.status == "waived":
            found = count(row.findings, "finding")
            text = f"\n{row.clause} in {row.mode} is waived: {row.reason}; {found}"
            console.print(text, markup=False)
    for fault in result.waiver_faults:
        console.print(f"\n[bold red]wrong waiver[/]: {escape(fault)}")


def _print_not_tried(console: Console, result: Result) -> None:
    """Name the MUSTs of the claimed modes for which the profile plans no case."""
    untried = [
        clause.id
        for clause in result.clauses.values()
        if clause.level == "MUST" and of_clause(result, clause) == "not tried"
    ]
    if untried:
        number = count(len(untried), "MUST")
        told = clause_ranges(untried)
        console.print(f"\nnot tried in profile {result.profile}: {number} ({told})", markup=False)


def _print_conclusion(console: Console, result: Result) -> None:
    statuses = [row.status for row in result.rows]
    counts = ", ".join(
        f"{statuses.count(item)} {WORDS[item]}" for item in WORST_FIRST if item in statuses
    )
    console.print(
        f"\n{result.executed} of {count(result.expected, 'case')} in {result.seconds:.0f} s; "
        f"clauses by mode: {counts or 'none'}"
    )
    verdict, _, reason = sentence(result).partition(":")
    style = _VERDICT_STYLES[result.exit_code]
    console.print(f"{escape(result.saver)} [{style}]{verdict}[/]:{escape(reason)}")


def _print_pace(console: Console, verdict: Verdict) -> None:
    if not verdict.paces:
        return
    paces = ", ".join(f"{pace.engine} {pace.per_minute:.0f}" for pace in verdict.paces)
    console.print(f"\ncases trained, saved, read back and reloaded a minute: {paces}")
    steps = [step for step in STEPS if any(step in pace.steps for pace in verdict.paces)]
    if steps:
        table = Table(title="seconds by step, those of two cases at once counted twice")
        for head in ("", *steps):
            table.add_column(head, justify="right")
        for pace in verdict.paces:
            table.add_row(pace.engine, *(f"{pace.steps.get(step, 0):.1f}" for step in steps))
        console.print(table)


def _print_pairs(console: Console, verdict: Verdict) -> None:
    pairs = verdict.pairs
    if pairs is None:
        return
    console.print(f"pairs of values of the axes covered: {pairs.covered} of {pairs.possible}")
    if pairs.unreachable:
        total = sum(pairs.unreachable.values())
        console.print(f"not reachable, and not counted: {count(total, 'pair')}")
        for reason, number in pairs.unreachable.items():
            console.print(f"  {number}: {reason}", markup=False)
