"""The command ``bisect``."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saver_conformance.cases.case import Case
from saver_conformance.environments.bisect import Break, Outcome, find_break
from saver_conformance.environments.inside import call_suite
from saver_conformance.environments.make import make_layer, python_of
from saver_conformance.environments.recipe import Recipe, find_recipe, name_of
from saver_conformance.environments.releases import choose_versions
from saver_conformance.errors import EnvironmentFailedError
from saver_conformance.reports.result import REPORT_FILE, Result, read_result
from saver_conformance.verdict.verdict import BROKEN, CONFORMS

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[Any]

Say = Callable[[str], None]


def add_command(commands: Commands, read_case: Callable[[str], Case]) -> None:
    """Add the command to the parser of the command line; ``read_case`` reads the case's file."""
    parser = commands.add_parser(
        "bisect",
        help="find the release of a library that broke a case",
        description="The case must hold with the first version and be broken with the last. Each "
        "version is installed without its dependencies in front of this environment's libraries; "
        "for uv:REQUIREMENT each gets an environment of its own.",
        epilog="Exit codes: 0 found; 3 the case is not as it has to be at one of the ends, or the "
        "command was called wrongly.\n\n"
        "Example:\n  saver-conformance bisect report/cases/CASE.json --saver peft "
        "--versions 0.20.0..0.21.2",
    )
    parser.add_argument("case", type=read_case, metavar="CASE.json", help="a file; - reads stdin")
    parser.add_argument(
        "--saver", required=True, help="the saver: an address, a name, or uv:REQUIREMENT"
    )
    parser.add_argument(
        "--versions",
        required=True,
        metavar="A..B",
        help="all final releases from A to B, or a list: A,B,C",
    )
    parser.add_argument(
        "--package", help="the distribution whose versions are tried (default: the saver's name)"
    )
    parser.add_argument("--clause", help="look at this clause only (default: every MUST)")
    parser.add_argument("--savers-dir", metavar="DIR", help="as for run")
    parser.set_defaults(command=_bisect)


def _bisect(given: argparse.Namespace) -> int:
    recipe = find_recipe(given.saver, None, Path.cwd())
    package = given.package or name_of(recipe.requirements[0] if recipe else given.saver)
    versions = choose_versions(given.versions, package)
    print(f"{len(versions)} versions of {package}: {versions[0]} to {versions[-1]}", flush=True)

    def judge(version: str) -> Outcome:
        began = time.monotonic()
        outcome, told = _judge(given, recipe, f"{package}=={version}")
        seconds = time.monotonic() - began
        print(f"{version:12} {outcome:8} {seconds:4.0f} s  {told}", flush=True)
        return outcome

    _tell(find_break(versions, judge), package)
    return CONFORMS


def _tell(found: Break, package: str) -> None:
    if found.between:
        print(
            f"{package}: holds with {found.holds}, broken with {found.broken}; could not be "
            f"judged between: {', '.join(found.between)}"
        )
    else:
        print(f"{package} {found.broken} broke it; it holds with {found.holds}")


def _judge(given: argparse.Namespace, recipe: Recipe | None, pin: str) -> tuple[Outcome, str]:
    with tempfile.TemporaryDirectory() as scratch:
        report, log = Path(scratch, "report"), Path(scratch, "log")
        report.mkdir()
        saver = recipe.call if recipe else given.saver
        words = ["replay", "-", "--saver", saver, "--report", str(report)]
        words += ["--savers-dir", given.savers_dir] if given.savers_dir else []
        try:
            if recipe:
                own = Recipe(recipe.call, (pin, *recipe.requirements[1:]), python=recipe.python)
                python, layers = python_of(own, _note), []
            else:
                python, layers = Path(sys.executable), [make_layer(pin, _note)]
            call_suite(python, words, report, layers, log, given.case.to_json())
        except EnvironmentFailedError as error:
            return "unknown", str(error).splitlines()[0]
        if not (report / REPORT_FILE).is_file():
            return "unknown", _last_line(log)
        return outcome_of(read_result(report / REPORT_FILE), given.clause)


def outcome_of(result: Result, clause: str | None) -> tuple[Outcome, str]:
    """What a report says about the case, or about one clause in it, with the reason in words."""
    if clause is not None:
        statuses = {row.status for row in result.rows if row.clause == clause}
        if "fail" in statuses or "deviation" in statuses:
            return "broken", clause
        return ("holds", clause) if statuses == {"pass"} else ("unknown", f"{clause} not checked")
    if result.exit_code == BROKEN:
        return "broken", ", ".join(result.broken())
    if result.exit_code == CONFORMS:
        return "holds", ""
    return "unknown", next((item.reason.splitlines()[-1] for item in result.not_run), "not judged")


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "the run printed nothing"


def _note(text: str) -> None:
    print(f"saver-conformance: {text}", file=sys.stderr)
