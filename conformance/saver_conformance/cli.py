"""The command ``saver-conformance``."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import click
import typer

from saver_conformance.case import MODES, Case, Mode
from saver_conformance.harness import HarnessFailedError
from saver_conformance.judge import UnknownSaverError
from saver_conformance.profiles import Profile
from saver_conformance.report import SMALLEST_CASE_FILE
from saver_conformance.runner import REFERENCE, replay, run_conformance
from saver_conformance.savers import list_savers
from saver_conformance.spec import SPEC
from saver_conformance.terminal import LiveProgress, make_console, print_verdict
from saver_conformance.verdict import HARNESS_FAILED, Verdict
from saver_conformance.world import SAVE_LIMIT

INTERRUPTED = 130
"""Exit code after Ctrl-C or SIGTERM, as shells count."""

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Judge a function that saves fine-tuned models, by training tiny models and reading "
    "back what it saved.",
    epilog="Exit codes: 0 every claimed MUST was checked and holds; 1 a MUST is broken; "
    "2 inconclusive; 3 the harness failed or was called wrongly.",
)


class ProfileName(StrEnum):
    """How much is tried."""

    smoke = "smoke"
    gate = "gate"
    explore = "explore"


class Subject(StrEnum):
    """What can be listed."""

    clauses = "clauses"
    modes = "modes"
    savers = "savers"


SaverOption = Annotated[
    str, typer.Option("--saver", metavar="PKG.MOD:FUNC", help="Called on every rank.")
]
LimitOption = Annotated[
    float, typer.Option("--save-limit", min=1, help="Seconds until a save counts as hanging.")
]


@app.command()
def run(
    saver: SaverOption = REFERENCE,
    modes: Annotated[
        str, typer.Option(help="Claimed modes, separated by commas; patterns work: 'lora-*'.")
    ] = "all",
    profile: Annotated[ProfileName, typer.Option(help="How much is tried.")] = ProfileName.gate,
    report: Annotated[
        Path | None, typer.Option(file_okay=False, help="Folder for report.json.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=1, help="How long explore goes on; else until Ctrl-C.")
    ] = None,
    save_limit: LimitOption = SAVE_LIMIT,
) -> None:
    """Train under every claimed mode, save, read back, reload, and judge."""
    if seconds is not None and profile != ProfileName.explore:
        raise click.UsageError("--seconds goes with --profile explore")
    chosen: Profile = profile.value
    console = make_console()
    with LiveProgress(console) as progress:
        verdict = run_conformance(
            saver,
            modes=select_modes(modes),
            profile=chosen,
            report=report,
            save_limit=save_limit,
            seconds=seconds,
            progress=progress,
        )
    print_verdict(console, verdict, report)
    _keep_smallest(verdict, report)
    raise typer.Exit(verdict.exit_code)


@app.command("replay")
def replay_command(
    case: Annotated[str, typer.Argument(metavar="CASE.json", help="A case; - reads stdin.")],
    saver: SaverOption = REFERENCE,
    save_limit: LimitOption = SAVE_LIMIT,
) -> None:
    """Judge a saver by one case, as printed with a finding."""
    verdict = replay(_read_case(case), saver, save_limit=save_limit)
    print_verdict(make_console(), verdict)
    raise typer.Exit(verdict.exit_code)


@app.command("list")
def list_subject(subject: Annotated[Subject, typer.Argument()]) -> None:
    """List the clauses of the spec, the modes, or the savers known here."""
    if subject is Subject.clauses:
        for clause in SPEC.values():
            typer.echo(f"{clause.id}  {clause.level:6}  {clause.title}")
    elif subject is Subject.modes:
        for mode in MODES:
            typer.echo(mode.name)
    else:
        for address in (REFERENCE, *list_savers(Path.cwd())):
            typer.echo(address)


@app.command()
def explain(clause: Annotated[str, typer.Argument(metavar="CLAUSE")]) -> None:
    """Say what a clause demands, where, and why."""
    found = SPEC.get(clause.upper())
    if found is None:
        raise click.UsageError(f"no clause {clause!r}; see: saver-conformance list clauses")
    typer.echo(f"{found.id} {found.title}")
    typer.echo(f"{found.level}, modes {', '.join(found.modes)}, since {found.since}\n")
    typer.echo(found.text)
    typer.echo(f"\nReason: {found.reason}")


def select_modes(patterns: str) -> tuple[Mode, ...]:
    """The modes that a list like ``full-ddp,lora-*`` names; ``all`` names all.

    Raises:
        click.UsageError: a part of the list names none.
    """
    parts = tuple(part.strip() for part in patterns.split(",") if part.strip())
    parts = tuple("*" if part == "all" else part for part in parts)
    for part in parts:
        if not any(mode.matches((part,)) for mode in MODES):
            raise click.UsageError(f"no mode is called {part!r}; see: saver-conformance list modes")
    if not parts:
        raise click.UsageError("--modes names no mode")
    return tuple(mode for mode in MODES if mode.matches(parts))


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit as documented; nothing a user does ends in a traceback."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = app(args=arguments, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(HARNESS_FAILED)
    except (UnknownSaverError, HarnessFailedError, OSError) as error:
        typer.echo(f"saver-conformance: {error}", err=True)
        sys.exit(HARNESS_FAILED)
    except (KeyboardInterrupt, click.Abort):
        typer.echo("saver-conformance: interrupted; no verdict", err=True)
        sys.exit(INTERRUPTED)
    sys.exit(code if isinstance(code, int) else 0)


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _read_case(source: str) -> Case:
    try:
        return Case.from_json(sys.stdin.read() if source == "-" else Path(source).read_text())
    except (OSError, ValueError, TypeError) as error:
        raise click.UsageError(f"no case in {source!r}: {error}") from error


def _keep_smallest(verdict: Verdict, report: Path | None) -> None:
    if verdict.smallest is None:
        return
    path = (report or Path()) / SMALLEST_CASE_FILE
    path.write_text(verdict.smallest.to_json() + "\n")
    typer.echo(f"the smallest case that fails is in {path}")


if __name__ == "__main__":
    main()
