"""What a person sees: progress while it works, then a table of modes by areas and the findings."""

from __future__ import annotations

import os
import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from saver_conformance.cases.case import Case, Mode
from saver_conformance.execution.timing import STEPS
from saver_conformance.reports.plain_text import (
    INDENT,
    clause_ranges,
    evidence_parts,
    failure_heading,
    failure_lines,
    told_failures,
    unchanged_text,
    unchecked,
)
from saver_conformance.reports.report_json import to_result
from saver_conformance.reports.result import Cause, Evidence, Result
from saver_conformance.reports.status import (
    WORDS,
    WORST_FIRST,
    CellStatus,
    in_area,
    in_mode_and_area,
    of_clause,
    sentence,
)
from saver_conformance.safe_text import count, excerpt, printable
from saver_conformance.verdict.verdict import (
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
FEWEST_COLUMNS = 20
"""Columns that text gets, however narrow the terminal is."""
PLAIN_WIDTH = 120
"""Columns of the output when it does not go to a terminal and COLUMNS says nothing."""

_STYLES: dict[CellStatus, str] = {
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
_BROKEN: tuple[CellStatus, ...] = ("fail", "deviation")
_EMPTY: tuple[CellStatus, ...] = ("no demand", "not tried", "not claimed")
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
        self._console.print(self._what, markup=False)  # at once: planning takes seconds
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def plan(self, cases: int) -> None:
        """Show how many cases are planned, before the first rank is started."""
        self._planned = cases
        number = count(cases, "case") if cases else "cases without end"
        self._console.print(f"{number}, starting ranks")
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
            failure = record.failure
            how = (failure.exception or failure.kind) if failure else ""
            place = f" at {failure.place}" if failure and failure.place else ""
            told = f" ({how}{place})" if how else ""
            self._console.print(f"  {record.case.mode}: {', '.join(broken)}{escape(told)}")
        elif record.status == "error":
            self._console.print(f"  {record.case.mode}: the harness failed")

    def note(self, text: str) -> None:
        """Print what the run waits for."""
        self._console.print(f"  {printable(text)}", markup=False)


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
    findings = _Findings(console, result, report)
    findings.print_unchanged()
    findings.print_failures()
    findings.print_causes()
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
    for table in (wide, narrow):
        table.add_column("mode", no_wrap=True)
        for area in areas:
            table.add_column(area, no_wrap=True, justify="center" if table is wide else "left")
        table.add_column("cases", no_wrap=True, justify="right")
        for mode, found in statuses.items():
            table.add_row(mode, *(Text(WORDS[item], _STYLES[item]) for item in found), cases[mode])
    narrow.padding = (0, 1, 0, 0)
    if _fits(console, wide):
        console.print(wide)
    elif _fits(console, narrow):
        console.print(narrow)
    else:
        console.print(title)
        for mode, found in statuses.items():
            console.print(f"[bold]{mode}[/] {cases[mode]}: {_list_areas(found, areas)}")


def _list_areas(found: Sequence[CellStatus], areas: Sequence[str]) -> str:
    """The areas by their status, the worst first: ``FAIL FILES, TENSOR; pass META``."""
    by_status: dict[CellStatus, list[str]] = {}
    for status, area in zip(found, areas, strict=True):
        by_status.setdefault(status, []).append(area)
    return "; ".join(
        f"[{_STYLES[status]}]{WORDS[status]}[/] {', '.join(by_status[status])}"
        for status in WORST_FIRST
        if status in by_status
    )


def _fits(console: Console, table: Table) -> bool:
    """Whether nothing of ``table`` has to be cut."""
    unlimited = console.options.update(max_width=1000)
    return Measurement.get(console, unlimited, table).maximum <= console.width


class _Findings:
    """Prints what is broken; the words of a case stand at the first finding that needs them."""

    def __init__(self, console: Console, result: Result, report: Path | None) -> None:
        self._console = console
        self._result = result
        self._report = report
        self._failures = told_failures(result)
        self._explained: set[str] = set()

    def print_unchanged(self) -> None:
        """Say first that the save did nothing: all else that is broken follows from it."""
        if self._result.unchanged is None:
            return
        self._console.print(f"\n[bold red]{unchanged_text(self._result)}[/]")
        self._print_command(self._result.unchanged.replay)

    def print_failures(self) -> None:
        """Print each exception, hang and death once."""
        for failure in self._failures[:SHOWN_FAILURES]:
            self._console.print(f"\n[bold red]{failure_heading(failure)}[/]")
            for line in failure_lines(self._result, failure):
                _print_wrapped(self._console, line, "  ", "    ")
            if failure.example is not None:
                self._print_evidence(failure.example, FOUND_LINES)
        if rest := self._failures[SHOWN_FAILURES:]:
            self._print_rest(count(len(rest), "other failure"))

    def print_causes(self) -> None:
        """Print the other clauses that are broken, each by its simplest case."""
        told = {clause for failure in self._failures for clause in failure.clauses}
        causes = [
            (cause, status)
            for clause, cause in self._result.causes.items()
            if (status := of_clause(self._result, self._result.clauses[clause])) in _BROKEN
            and clause not in told
        ]
        causes.sort(key=lambda item: WORST_FIRST.index(item[1]))
        for number, (cause, _) in enumerate(causes[:SHOWN_CAUSES]):
            self._print_cause(cause, LATER_LINES if number else FOUND_LINES)
        if rest := causes[SHOWN_CAUSES:]:
            self._print_rest(clause_ranges(cause.clause for cause, _ in rest))

    def _print_cause(self, cause: Cause, lines: int) -> None:
        clause = self._result.clauses[cause.clause]
        self._console.print(f"\n[bold]{clause.id}[/] ({clause.level}) {escape(clause.text)}")
        self._print_evidence(cause.example, lines)
        if cause.findings > 1:
            found = f"{count(cause.findings, 'finding')} in {count(cause.cases, 'case')}"
            _print_labelled(self._console, "in all:", f"{found} of {', '.join(cause.modes)}")
        _print_labelled(self._console, "what now:", f"saver-conformance explain {clause.id}")

    def _print_evidence(self, evidence: Evidence, lines: int) -> None:
        for label, text in evidence_parts(evidence):
            if label == "replay":
                self._print_command(text)
            elif label == "case":
                _print_labelled(self._console, "case:", "\n".join(self._explain(evidence.case)))
            else:
                _print_labelled(self._console, f"{label}:", excerpt(text, lines))

    def _explain(self, values: Sequence[str]) -> list[str]:
        """The values of a case, with their words where these have not been printed yet."""
        fresh = [value for value in values if value not in self._explained]
        self._explained.update(fresh)
        known = [value.partition(":")[0] for value in values if value not in fresh]
        return [*fresh, *([", ".join(known)] if known else [])]

    def _print_command(self, command: str) -> None:
        """Print a command as one line, however long: it is there to be copied."""
        text = f"  {'replay:':{INDENT}}{command}"
        self._console.print(text, markup=False, soft_wrap=True)

    def _print_rest(self, what: str) -> None:
        where = f"see {self._report}" if self._report else "--report DIR tells how"
        self._console.print(f"\nalso broken, {where}: {what}", markup=False)


def _print_labelled(console: Console, label: str, text: str) -> None:
    """Print ``text`` behind its label, what does not fit below where it begins."""
    for line in text.splitlines() or [""]:
        _print_wrapped(console, line, f"  {label:{INDENT}}", " " * (2 + INDENT))
        label = ""


def _print_wrapped(console: Console, line: str, first: str, later: str) -> None:
    """Print ``line`` with a beginning for its first line and for those that it goes on in."""
    width = max(console.width, len(later) + FEWEST_COLUMNS)
    shown = textwrap.fill(
        line,
        width,
        initial_indent=first,
        subsequent_indent=later,
        break_on_hyphens=False,
    )
    console.print(shown or first, markup=False, soft_wrap=True)


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
    hidden: dict[tuple[str, str], list[str]] = {}
    for row in result.rows:
        if row.status == "waived" and row.findings:
            found = count(row.findings, "finding")
            text = f"\n{row.clause} in {row.mode} is waived: {row.reason}; {found}"
            console.print(text, markup=False)
        elif row.status == "waived":
            hidden.setdefault((row.mode, row.reason), []).append(row.clause)
    for (mode, reason), clauses in hidden.items():
        number = count(len(clauses), "clause")
        console.print(f"\n{number} in {mode} waived: {reason}", markup=False)
    for fault in result.waiver_faults:
        console.print(f"\n[bold red]wrong waiver[/]: {escape(fault)}")


def _print_not_tried(console: Console, result: Result) -> None:
    """Name the MUSTs of the claimed modes for which the profile plans no case."""
    untried = [
        clause.id
        for clause in result.clauses.values()
        if clause.level == "MUST" and of_clause(result, clause) == "not tried"
    ]
    if untried and result.profile != "replay":  # one case tries little
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
    if result.interrupted:
        console.print("[bold yellow]interrupted[/]: not every planned case was run")
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
