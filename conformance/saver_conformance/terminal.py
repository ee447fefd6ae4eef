"""What a person sees: progress while it works, then a table of modes by areas and the findings."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table

from saver_conformance.case import Case, Mode
from saver_conformance.report import Cause, case_file, group_by_cause, replay_command
from saver_conformance.shown import printable
from saver_conformance.spec import AREAS, SPEC
from saver_conformance.stopwatch import STEPS
from saver_conformance.verdict import (
    BROKEN,
    CONFORMS,
    HARNESS_FAILED,
    INCONCLUSIVE,
    CaseRecord,
    Row,
    Status,
    Verdict,
)

FOUND_LINES = 24
"""Lines of a finding's detail that are shown; ``report.json`` has all of them."""
LATER_LINES = 6
"""The same, from the second clause on."""
SHOWN_CAUSES = 8
"""Clauses that are told in full; a saver that breaks many breaks most for one reason."""
PLAIN_WIDTH = 120
"""Columns of the output when it does not go to a terminal."""

_WORDS: dict[int, str] = {
    CONFORMS: "[bold green]conforms[/]: every claimed MUST holds, and was checked in every planned "
    "case",
    BROKEN: "[bold red]does not conform[/]: a MUST is broken, or a waiver is wrong",
    INCONCLUSIVE: "[bold yellow]inconclusive[/]: not everything that is claimed was checked",
    HARNESS_FAILED: "[bold yellow]the harness failed[/]: nobody is accused",
}
_WORST_FIRST: tuple[Status, ...] = (
    "fail",
    "error",
    "unavailable",
    "deviation",
    "waived",
    "not claimed",
    "pass",
)
_STYLES: dict[Status, str] = {
    "fail": "[bold red]FAIL[/]",
    "error": "[bold yellow]error[/]",
    "unavailable": "[yellow]n/a[/]",
    "deviation": "[cyan]deviates[/]",
    "waived": "[cyan]waived[/]",
    "not claimed": "[dim]-[/]",
    "pass": "[green]pass[/]",
}


def make_console() -> Console:
    """A console on stdout; as wide as a report needs where there is no terminal."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PLAIN_WIDTH)


class LiveProgress:
    """A bar on a terminal; elsewhere a line when a mode begins and one for each failure."""

    def __init__(self, console: Console) -> None:
        self._console = console
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
        """Show how many cases are planned."""
        self._planned = cases
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

    def note(self, text: str) -> None:
        """Print what the run waits for."""
        self._console.print(f"  {printable(text)}", markup=False)


def print_verdict(console: Console, verdict: Verdict, report: Path | None = None) -> None:
    """Print the table, what was not checked, the findings by cause, and the verdict."""
    console.print(_make_table(verdict))
    _print_pace(console, verdict)
    _print_pairs(console, verdict)
    _print_not_tried(console, verdict)
    _print_not_run(console, verdict)
    _print_failures(console, verdict)
    causes: Sequence[Cause] = group_by_cause(
        [row for row in verdict.rows if row.status != "waived"]
    )
    causes = sorted(causes, key=lambda cause: verdict.levels[cause.clause] != "MUST")
    for number, cause in enumerate(causes[:SHOWN_CAUSES]):
        lines = LATER_LINES if number else FOUND_LINES
        _print_cause(console, cause, verdict, report, lines)
    if rest := [cause.clause for cause in causes[SHOWN_CAUSES:]]:
        console.print(f"\nalso broken, see the report: {', '.join(rest)}")
    _print_waivers(console, verdict)
    counts = ", ".join(
        f"{number} {status}" for status in _WORST_FIRST if (number := verdict.count(status))
    )
    console.print()
    console.print(
        f"{verdict.executed} of {verdict.expected} cases in {verdict.seconds:.0f} s; "
        f"clauses by mode: {counts or 'none'}"
    )
    waived = f"; [cyan]{number} waived[/]" if (number := verdict.count("waived")) else ""
    if verdict.interrupted:
        console.print("[bold yellow]interrupted[/]: not every planned case was run")
    console.print(f"{escape(verdict.saver)} {_WORDS[verdict.exit_code]}{waived}")


def _make_table(verdict: Verdict) -> Table:
    table = Table(title=f"{escape(verdict.saver)}, {verdict.profile}", title_justify="left")
    table.add_column("mode")
    areas = [area for area in AREAS if any(row.area == area for row in verdict.rows)]
    for area in areas:
        table.add_column(area, justify="center")
    table.add_column("cases", justify="right")
    table.add_column("time", justify="right")
    for mode in verdict.modes:
        rows = [row for row in verdict.rows if row.mode == mode]
        records = [record for record in verdict.records if record.case.mode == mode]
        run = [record for record in records if record.status == "run"]
        table.add_row(
            mode.name,
            *(_cell([row for row in rows if row.area == area]) for area in areas),
            f"{len(run)}/{len(records)}",
            f"{sum(record.seconds for record in run):.1f} s",
        )
    return table


def _cell(rows: Sequence[Row]) -> str:
    for status in _WORST_FIRST:
        if any(row.status == status for row in rows):
            return _STYLES[status]
    return _STYLES["not claimed"]


def _print_pace(console: Console, verdict: Verdict) -> None:
    if verdict.paces:
        paces = ", ".join(f"{pace.engine} {pace.per_minute:.0f}" for pace in verdict.paces)
        console.print(f"cases trained, saved, read back and reloaded a minute: {paces}")
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
        console.print(f"not reachable, and not counted: {_count(total, 'pair')}")
        for reason, number in pairs.unreachable.items():
            console.print(f"  {number}: {reason}", markup=False)


def _print_not_tried(console: Console, verdict: Verdict) -> None:
    """Name the MUSTs of the claimed modes for which the profile plans no case."""
    tried = {row.clause for row in verdict.rows if row.mode in verdict.modes}
    untried = [
        clause
        for clause, level in verdict.levels.items()
        if level == "MUST" and clause not in tried
        if any(mode.matches(SPEC[clause].modes) for mode in verdict.modes)
    ]
    if untried:
        number = _count(len(untried), "MUST")
        console.print(f"not tried in profile {verdict.profile}: {number} ({', '.join(untried)})")


def _print_not_run(console: Console, verdict: Verdict) -> None:
    reasons: dict[str, list[CaseRecord]] = {}
    for record in verdict.records:
        if record.status != "run":
            reasons.setdefault(record.reason, []).append(record)
    for reason, records in reasons.items():
        modes = ", ".join(dict.fromkeys(record.case.mode.name for record in records))
        console.print(f"\n[yellow]{_count(len(records), 'case')} not run[/] ({modes}):")
        console.print(_shorten(reason), markup=False)
        if records[0].status == "error":
            console.print(replay_command(records[0].case, verdict.saver), markup=False)


def _print_failures(console: Console, verdict: Verdict) -> None:
    """One line for each cause for which saves failed."""
    for cause in verdict.failures:
        console.print(f"\n{printable(cause.text)}", markup=False)


def _print_waivers(console: Console, verdict: Verdict) -> None:
    hidden: dict[tuple[Mode, str], list[str]] = {}
    for row in verdict.rows:
        if row.status == "waived" and row.findings:
            console.print(
                f"\n{row.clause} in {row.mode} is waived: {row.reason}; "
                f"{_count(len(row.findings), 'finding')}",
                markup=False,
            )
        elif row.status == "waived":
            hidden.setdefault((row.mode, row.reason), []).append(row.clause)
    for (mode, reason), clauses in hidden.items():
        number = _count(len(clauses), "clause")
        console.print(f"\n{number} in {mode} waived: {reason}", markup=False)
    for fault in verdict.waiver_faults:
        console.print(f"\n[bold red]wrong waiver[/]: {escape(fault)}")


def _print_cause(
    console: Console, cause: Cause, verdict: Verdict, report: Path | None, lines_shown: int
) -> None:
    clause, example = SPEC[cause.clause], cause.example
    console.print(f"\n[bold]{clause.id}[/] ({clause.level}) {escape(clause.text)}")
    where = {
        "mode": example.case.mode.name,
        "rank": example.rank,
        "file": example.file,
        "tensor": example.tensor,
        "dtype": example.dtype,
        "shape": None if example.shape is None else list(example.shape),
        "offset": example.offset,
        "differing bytes": example.differing,
    }
    lines = [f"{name}: {value}" for name, value in where.items() if value is not None]
    console.print("  " + printable(", ".join(lines)), markup=False)
    console.print(f"  expected: {_shorten(example.expected, lines_shown)}", markup=False)
    console.print(f"  found:    {_shorten(example.found, lines_shown)}", markup=False)
    file = case_file(report, example.case) if report else None
    # One line, however long: it is there to be copied.
    command = replay_command(example.case, verdict.saver, file)
    console.print(f"  replay:   {command}", markup=False, soft_wrap=True)
    if cause.findings > 1:
        modes = ", ".join(mode.name for mode in cause.modes)
        count = f"{_count(cause.findings, 'finding')} in {_count(cause.cases, 'case')}"
        console.print(f"  in all: {count} of {modes}")


def _shorten(text: str, shown: int = FOUND_LINES) -> str:
    """``text`` with the middle left out when it is long; the ends of a traceback say most."""
    lines = [printable(line) for line in text.splitlines()]
    if len(lines) <= shown:
        return "\n    ".join(lines)
    half = shown // 2
    return "\n    ".join([*lines[:half], f"... {len(lines) - 2 * half} lines ...", *lines[-half:]])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
