"""The command ``saver-conformance``.

Built on argparse, whose exit code for a wrong call can be chosen: 2 means inconclusive here.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

from saver_conformance.cases.axis_text import AXES, explain
from saver_conformance.cases.case import MODES, Case, Mode, select_modes
from saver_conformance.cases.profiles import Profile
from saver_conformance.cases.shards import Shard
from saver_conformance.cases.tally import tally
from saver_conformance.claims import Claim
from saver_conformance.claims.claim import RESULTS
from saver_conformance.claims.claims_file import read_claims
from saver_conformance.claims.known_savers import list_savers
from saver_conformance.commands import bisect, folder, readers, reports, starting, witness
from saver_conformance.environments.inside import run_inside
from saver_conformance.environments.recipe import DEFAULT_FILE, Recipe, find_recipe
from saver_conformance.errors import (
    BisectError,
    ClaimsFileError,
    ComparisonError,
    EnvironmentFailedError,
    HarnessFailedError,
    KeepError,
    ReportFolderError,
    ResultError,
    ShardError,
    StarterFileError,
    UnknownSaverError,
    WaiverFileError,
)
from saver_conformance.execution.kept_output import AFTER, BEFORE
from saver_conformance.processes import interrupts
from saver_conformance.processes.fault_injection import CRASH_POINTS
from saver_conformance.processes.world import SAVE_LIMIT
from saver_conformance.readers.reader import ReaderError
from saver_conformance.readers.registry import choose
from saver_conformance.reports.advice import ADVICE
from saver_conformance.reports.environment import SUITE
from saver_conformance.reports.readings import describe_readings
from saver_conformance.reports.report_folder import SMALLEST_CASE_FILE, prepare
from saver_conformance.reports.report_json import write_report
from saver_conformance.reports.terminal import LiveProgress, make_console, print_verdict
from saver_conformance.run import REFERENCE, RunInterruptedError, plan, replay, run_conformance
from saver_conformance.safe_text import printable
from saver_conformance.spec import SPEC, Clause, spec_version
from saver_conformance.verdict.verdict import HARNESS_FAILED, Verdict
from saver_conformance.verdict.waivers import Waiver, read_waivers

INTERRUPTED = 130
"""Exit code after Ctrl-C, SIGTERM or SIGHUP, as shells count the first."""

_DESCRIPTION = (
    "Judge a function that saves fine-tuned models: train tiny models, have them saved, "
    "read the bytes back, reload them."
)
_EXIT_CODES = (
    "Exit codes: 0 every claimed MUST was checked and holds or is waived; 1 a MUST is broken, or a "
    "waiver is wrong; "
    "2 inconclusive: something claimed was not checked; 3 the harness failed or was called "
    "wrongly; 130 interrupted, and what was found before is printed and reported."
)

_CALLED_WRONGLY = (
    UnknownSaverError,
    HarnessFailedError,
    EnvironmentFailedError,
    ResultError,
    ShardError,
    BisectError,
    WaiverFileError,
    ReportFolderError,
    KeepError,
    ComparisonError,
    StarterFileError,
    OSError,
)
"""What ends the command with one message and the exit code 3."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit as documented; nothing a user does ends in a traceback."""
    interrupts.listen()
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        given = make_parser().parse_args(words, argparse.Namespace(words=words))
        code: int = given.command(given)
    except _CALLED_WRONGLY as error:
        # A terminal that is gone sends SIGHUP, and no word can be written to it any more.
        code = INTERRUPTED if interrupts.have_come() else HARNESS_FAILED
        _complain(str(error))
    except KeyboardInterrupt:
        code = INTERRUPTED
        _complain("interrupted; no verdict")
    if code == INTERRUPTED:
        interrupts.ignore()
    sys.exit(code)


def _complain(text: str) -> None:
    with contextlib.suppress(OSError):
        print(f"saver-conformance: {text}", file=sys.stderr)


class _Formatter(argparse.HelpFormatter):
    """Wraps each paragraph of a description, and keeps indented lines, such as examples."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(
            line
            if line.startswith("  ")
            else super(_Formatter, self)._fill_text(line, width, indent)
            for line in text.splitlines()
        )


class _Parser(argparse.ArgumentParser):
    """Ends a wrong call with the exit code of a harness that was called wrongly."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **{"formatter_class": _Formatter, **options})

    def error(self, message: str) -> NoReturn:
        self.exit(HARNESS_FAILED, f"{self.prog}: {message}\n")


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = _Parser(
        "saver-conformance",
        description=_DESCRIPTION,
        epilog=f"{_EXIT_CODES}\n\nExample:\n  saver-conformance demo",
    )
    version = f"%(prog)s {_version()}, spec {spec_version()}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    named = _Parser(add_help=False)
    named.add_argument(
        "--savers-dir",
        type=folder.find_folder,
        metavar="DIR",
        help="folder of modules whose savers have names (default: savers-dir below "
        "[tool.saver_conformance] in ./pyproject.toml); installed projects register savers as "
        "entry points",
    )

    saver = _Parser(add_help=False, parents=[named])
    saver.add_argument(
        "--saver",
        default=REFERENCE,
        metavar="PKG.MOD:FUNC",
        help="the saver, called on every rank as function(cfg, trainer, model), or its name in "
        "'list savers'; the current folder is importable. uv:REQUIREMENT judges it in an "
        "environment that is made and kept, venv:PATH#PKG.MOD:FUNC in one that is there "
        "(default: %(default)s)",
    )
    saver.add_argument(
        "--environments",
        type=Path,
        metavar="FILE.toml",
        help="savers with environments of their own: tables [savers.NAME] with requirements and "
        f"call (default: {DEFAULT_FILE}, if it is there)",
    )
    saver.add_argument(
        "--known-as",
        default="",
        metavar="NAME",
        help="what the report calls the saver, and replays call it by (default: --saver)",
    )
    saver.add_argument(
        "--save-limit",
        type=_positive,
        default=SAVE_LIMIT,
        metavar="SECONDS",
        help="time after which a save counts as hanging, longer while other work keeps the machine "
        "busy (default: %(default)g)",
    )

    saver.add_argument(
        "--crash-points",
        type=_count,
        default=CRASH_POINTS,
        metavar="N",
        help="system calls of a save at which it is killed, spread from the first to the last, in "
        "the cases that do so (default: %(default)d)",
    )
    saver.add_argument(
        "--waivers",
        type=_read_waivers,
        default=(),
        metavar="FILE.toml",
        help="clauses that are known to be broken: tables [CLAUSE.MODE] with reason and link; "
        'a mode may be a pattern: [FILES-010."lora-*"]',
    )
    saver.add_argument(
        "--claims",
        type=_read_claims,
        metavar="FILE.toml",
        help="what the saver claims: modes, clauses that it has no part in, values of axes",
    )

    run = commands.add_parser(
        "run",
        parents=[saver],
        help="judge a saver in the modes that it claims",
        epilog=f"{_EXIT_CODES}\n\nExample:\n"
        "  saver-conformance run --saver my_package.saving:save_model "
        '--modes "full-single,lora-*" --report report',
    )
    run.add_argument(
        "--modes",
        type=_select_modes,
        default=MODES,
        help="claimed modes, separated by commas; patterns work: 'lora-*' (default: all)",
    )
    run.add_argument(
        "--profile",
        choices=("smoke", "survey", "gate", "nightly", "readers", "explore"),
        default="gate",
        help="smoke: every mode at a glance; survey: and what savers are known to lose things by; "
        "gate: all pairs of the axes; nightly: and of every engine, family of models and kind "
        "of adapter with all else; readers: each family once, for --readers; explore: random cases "
        "without end, the first failing one is shrunk (default: %(default)s)",
    )
    run.add_argument(
        "--report", type=Path, metavar="DIR", help="folder for a page, report.json and more"
    )
    run.add_argument(
        "--readers",
        type=_name_readers,
        metavar="NAMES",
        help="have some folders read by the programs that serve models, and judge PORTABLE: names "
        "in 'readers list', separated by commas; fast; all; or files, which judges the files alone",
    )
    run.add_argument(
        "--seconds", type=_positive, help="how long explore draws (default: until Ctrl-C)"
    )
    run.add_argument(
        "--shard",
        type=_read_shard,
        metavar="N/OF",
        help="run one part of the plan, such as 2/8; 'merge' makes the verdict of all",
    )
    run.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="also print the speed of the suite, and the pairs of values that it covered",
    )
    run.set_defaults(command=_run)

    again = commands.add_parser(
        "replay",
        parents=[saver],
        help="judge a saver by one case",
        epilog=f"{_EXIT_CODES}\n\nExample:\n"
        "  saver-conformance replay report/cases/CASE.json --saver my_package.saving:save_model "
        "--keep kept",
    )
    again.add_argument("case", type=_read_case, metavar="CASE.json", help="a file; - reads stdin")
    again.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        dest="listen",
        help="show what the ranks print while they save",
    )
    again.add_argument(
        "--keep",
        type=Path,
        metavar="DIR",
        help="a new folder for copies of the output folder: DIR/before and DIR/after the save",
    )
    again.add_argument(
        "--report", type=Path, metavar="DIR", help="folder for a page, report.json and more"
    )
    again.set_defaults(command=_replay)

    bisect.add_command(commands, _read_case)
    witness.add_command(commands)
    reports.add_commands(commands)
    folder.add_commands(commands)
    readers.add_commands(commands)
    starting.add_commands(commands, parser)

    listing = commands.add_parser(
        "list",
        parents=[named],
        help="list clauses, modes, savers, axes, or how many cases try each value",
        epilog="Example:\n  saver-conformance list clauses",
    )
    listing.add_argument("subject", choices=("clauses", "modes", "savers", "axes", "coverage"))
    listing.set_defaults(command=_list)

    explain = commands.add_parser(
        "explain",
        help="explain a clause, or an axis of the cases and its values",
        epilog="Examples:\n  saver-conformance explain FILES-005\n"
        "  saver-conformance explain existing_save",
    )
    explain.add_argument(
        "subject",
        type=_find_subject,
        metavar="CLAUSE|AXIS",
        help="see 'list clauses' and 'list axes'",
    )
    explain.set_defaults(command=_explain)
    return parser


def _name_readers(text: str) -> tuple[str, ...]:
    """Names of readers for argparse; ``files`` is none of them."""
    names = tuple(name for name in text.split(",") if name not in ("", "files"))
    try:
        choose(names)
    except ReaderError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return names


def _elsewhere(given: argparse.Namespace) -> Recipe | None:
    """The environment that the saver asks for; None if it is judged in this one."""
    return find_recipe(given.saver, given.environments, Path.cwd())


def _run_elsewhere(given: argparse.Namespace, recipe: Recipe, stdin: str = "") -> int:
    return run_inside(recipe, given.words, given.saver, given.report, _complain, stdin)


def _run(given: argparse.Namespace) -> int:
    if recipe := _elsewhere(given):
        return _run_elsewhere(given, recipe)
    console = make_console()
    if given.report is not None:
        prepare(given.report)
    try:
        with LiveProgress(console, given.profile, _name(given)) as progress:
            verdict = run_conformance(
                given.saver,
                modes=given.modes,
                profile=given.profile,
                save_limit=given.save_limit,
                crash_points=given.crash_points,
                seconds=given.seconds,
                progress=progress,
                waivers=given.waivers,
                claims=given.claims,
                savers_dir=given.savers_dir,
                readers=given.readers,
                shard=given.shard,
            )
    except RunInterruptedError as interrupted:
        return _end_early(console, interrupted.verdict, given)
    _finish(console, verdict, given)
    return verdict.exit_code


def _finish(console: Console, verdict: Verdict, given: argparse.Namespace) -> None:
    """Print the verdict, and write the report if one is requested."""
    verdict = replace(verdict, known_as=given.known_as)
    _print(console, verdict, given)
    _write(console, verdict, given)


def _end_early(console: Console, verdict: Verdict, given: argparse.Namespace) -> int:
    """Print and write what an interrupted run has found; its terminal may be gone."""
    verdict = replace(verdict, known_as=given.known_as)
    with contextlib.suppress(OSError):
        if verdict.executed:
            _print(console, verdict, given)
    if verdict.executed:
        _write(console, verdict, given)
    _complain("interrupted" if verdict.executed else "interrupted; no verdict")
    return INTERRUPTED


def _print(console: Console, verdict: Verdict, given: argparse.Namespace) -> None:
    report = _report_of(given)
    print_verdict(console, verdict, report, verbose=getattr(given, "verbose", False))
    for line in describe_readings(verdict.records):
        console.print(line, markup=False, soft_wrap=True)
    if verdict.smallest is not None:
        where = report / SMALLEST_CASE_FILE if report else verdict.smallest.to_short_json()
        console.print(f"the smallest case that fails: {where}", markup=False, soft_wrap=True)


def _write(console: Console, verdict: Verdict, given: argparse.Namespace) -> None:
    """Write the report, last: a disk that is full by now costs nothing but the report."""
    report = _report_of(given)
    if report is not None:
        page = write_report(verdict, report)
        with contextlib.suppress(OSError):
            console.print(f"report: {page}", markup=False, soft_wrap=True)


def _report_of(given: argparse.Namespace) -> Path | None:
    """The folder for the report; None where none is asked for."""
    report: Path | None = given.report
    return report


def _replay(given: argparse.Namespace) -> int:
    if given.report is not None:
        prepare(given.report)
    if recipe := _elsewhere(given):
        # A case on stdin has been read by now.
        return _run_elsewhere(given, recipe, given.case.to_json())
    console = make_console()

    def listen(rank: int, line: str) -> None:
        console.print(f"rank {rank}: {printable(line)}", markup=False, soft_wrap=True)

    try:
        with LiveProgress(console, "replay", _name(given)) as progress:
            verdict = replay(
                given.case,
                given.saver,
                save_limit=given.save_limit,
                crash_points=given.crash_points,
                waivers=given.waivers,
                claims=given.claims,
                progress=progress,
                listen=listen if given.listen else None,
                keep=given.keep,
                savers_dir=given.savers_dir,
            )
    except RunInterruptedError as interrupted:
        return _end_early(console, interrupted.verdict, given)
    _finish(console, verdict, given)
    for name in (BEFORE, AFTER) if given.keep else ():
        copy = given.keep / name
        there = copy if copy.exists() else "nothing, there was no output folder"
        console.print(f"{name} the save: {there}", markup=False, soft_wrap=True)
    return verdict.exit_code


def _list(given: argparse.Namespace) -> int:
    if given.subject == "savers":
        known = list_savers(Path.cwd(), given.savers_dir)
        print(*dict.fromkeys((REFERENCE, *(claim.line for claim in known))), sep="\n")
        return 0
    if given.subject == "coverage":
        every = Claim("", results=RESULTS)
        profiles: tuple[Profile, ...] = ("smoke", "survey", "gate", "nightly")
        print(*tally({profile: plan(every, MODES, profile) for profile in profiles}), sep="\n")
        return 0
    lines: dict[str, Sequence[str]] = {
        "clauses": [f"{item.id}  {item.level:6}  {item.title}" for item in SPEC.values()],
        "modes": [mode.name for mode in MODES],
        "axes": [f"{name:16} {axis.text}" for name, axis in AXES.items()],
    }
    print(*lines[given.subject], sep="\n")
    return 0


def _explain(given: argparse.Namespace) -> int:
    subject: Clause | str = given.subject
    if isinstance(subject, str):
        print(explain(subject))
        return 0
    print(f"{subject.id} {subject.title}")
    print(f"{subject.level}, modes {', '.join(subject.modes)}, since {subject.since}\n")
    print(f"{subject.text}\n\nReason: {subject.reason}")
    print(f"\nMy saver fails it, what now? {ADVICE[subject.id]}")
    return 0


def _positive(text: str) -> float:
    number = float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def _read_case(source: str) -> Case:
    try:
        return Case.from_json(sys.stdin.read() if source == "-" else Path(source).read_text())
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise argparse.ArgumentTypeError(f"no case in {source!r}: {error}") from error


def _read_shard(text: str) -> Shard:
    try:
        return Shard.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _read_waivers(name: str) -> tuple[Waiver, ...]:
    try:
        return read_waivers(Path(name))
    except WaiverFileError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _select_modes(patterns: str) -> tuple[Mode, ...]:
    try:
        return select_modes(patterns)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _read_claims(name: str) -> Claim:
    try:
        return read_claims(Path(name))
    except ClaimsFileError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _find_subject(name: str) -> Clause | str:
    """A clause, or the name of an axis."""
    if name.lower() in AXES:
        return name.lower()
    if name.upper() not in SPEC:
        raise argparse.ArgumentTypeError(
            f"no clause or axis is called {name!r}; see: saver-conformance list clauses, list axes"
        )
    return SPEC[name.upper()]


def _name(given: argparse.Namespace) -> str:
    saver: str = given.known_as or given.saver
    return f"{saver}, the reference (--saver names another)" if saver == REFERENCE else saver


def _version() -> str:
    try:
        return metadata.version(SUITE)
    except metadata.PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    main()
