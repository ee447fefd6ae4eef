"""The commands ``demo``, ``init`` and ``completion``."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saver_conformance.cases.case import select_modes
from saver_conformance.claims.known_savers import check_address
from saver_conformance.commands.folder import find_folder
from saver_conformance.errors import HarnessFailedError
from saver_conformance.getting_started import demo, starter_files
from saver_conformance.getting_started.signature import read_parameters
from saver_conformance.reports.report_folder import prepare
from saver_conformance.reports.report_json import write_report
from saver_conformance.reports.terminal import LiveProgress, make_console, print_verdict
from saver_conformance.run import replay
from saver_conformance.verdict.verdict import CONFORMS, HARNESS_FAILED

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[Any]

SHELLS = ("bash", "zsh", "fish")
PROJECT_FILES = ("pyproject.toml", "setup.py", "setup.cfg")


def add_commands(commands: Commands, parser: argparse.ArgumentParser) -> None:
    """Add the commands to ``commands`` of the command line's ``parser``."""
    shown = commands.add_parser(
        "demo",
        help="see a broken saver being found, in less than a minute",
        description="Judge a saver that has one defect by one case, and say what to look at next.",
        epilog="Exit codes: 0 the defect was found; 3 the suite could not run here.\n\n"
        "Example:\n  saver-conformance demo",
    )
    shown.add_argument("--report", type=Path, metavar="DIR", help="folder for the report as a page")
    shown.set_defaults(command=run_demo)

    init = commands.add_parser(
        "init",
        help="write an adapter of your saver, a claims file and a CI job",
        description=f"Write {starter_files.ADAPTER}, {starter_files.CLAIMS} and "
        f"{starter_files.WORKFLOW}. The saver is read and not imported. No file is overwritten.",
        epilog="Exit codes: 0 written; 3 a file is in the way, or there is no such saver.\n\n"
        "Example:\n"
        '  saver-conformance init my_package.saving:save_model --modes "full-single,lora-*"',
    )
    init.add_argument(
        "saver", metavar="PKG.MOD:FUNC", help="the function of your framework that saves a model"
    )
    init.add_argument(
        "--modes",
        default="full-single",
        type=_read_patterns,
        help="supported modes, separated by commas; patterns work (default: %(default)s)",
    )
    init.add_argument(
        "--dir",
        type=find_folder,
        default=Path(),
        metavar="DIR",
        help="the root folder of the framework's repository (default: the current folder)",
    )
    init.set_defaults(command=run_init)

    completion = commands.add_parser(
        "completion",
        help="print a script for completion in a shell; needs the extra 'completion'",
        description="Print a script that completes commands, options and their values.",
        epilog="Examples:\n"
        "  saver-conformance completion bash "
        "> ~/.local/share/bash-completion/completions/saver-conformance\n"
        "  saver-conformance completion zsh > ~/.zfunc/_saver-conformance\n"
        "  saver-conformance completion fish "
        "> ~/.config/fish/completions/saver-conformance.fish",
    )
    completion.add_argument("shell", choices=SHELLS)
    completion.set_defaults(command=print_completion, parser=parser)


def run_demo(given: argparse.Namespace) -> int:
    """Judge the saver of the demonstration."""
    console = make_console()
    if given.report is not None:
        prepare(given.report)
    console.print(demo.INTRODUCTION, markup=False, highlight=False)
    with LiveProgress(console, "demo", demo.SAVER) as progress:
        verdict = replay(demo.CASE, demo.SAVER, progress=progress)
    print_verdict(console, verdict, given.report)
    if given.report is not None:
        page = write_report(verdict, given.report)
        console.print(f"report: {page}", markup=False, soft_wrap=True)
    if not demo.found_defect(verdict):
        return HARNESS_FAILED
    console.print(f"\n{demo.NEXT}", markup=False, highlight=False, soft_wrap=True)
    return CONFORMS


def run_init(given: argparse.Namespace) -> int:
    """Write the files that a framework begins with."""
    folder: Path = given.dir
    parameters = read_parameters(given.saver, folder)
    check_address(given.saver, folder)
    framework = starter_files.Framework(
        saver=given.saver,
        patterns=given.modes,
        modes=select_modes(",".join(given.modes)),
        parameters=parameters,
        is_project=any((folder / name).is_file() for name in PROJECT_FILES),
    )
    for path in starter_files.write(starter_files.make(framework), folder):
        print(f"wrote {path}")
    print(*_remarks(framework), sep="\n")
    return CONFORMS


def _remarks(framework: starter_files.Framework) -> list[str]:
    """What is left to do."""
    lines = []
    unknown = [item.name for item in framework.parameters or () if item.is_unknown]
    if unknown:
        lines.append(f"Set {', '.join(unknown)} in {starter_files.ADAPTER}: the suite cannot know.")
    if framework.parameters is None:
        lines.append(
            f"Check the call in {starter_files.ADAPTER}: the source does not show the parameters "
            f"of {framework.saver}."
        )
    if not framework.is_project:
        lines.append(
            f"Add your framework to the step that installs it in {starter_files.WORKFLOW}: there "
            f"is no {' or '.join(PROJECT_FILES)}."
        )
    options = f"--saver {starter_files.SAVER} --claims {starter_files.CLAIMS}"
    return [
        *lines,
        "Next, in that folder:",
        f"  saver-conformance run {options} --profile smoke --report report",
    ]


def print_completion(given: argparse.Namespace) -> int:
    """Print the script that completes the command line in a shell."""
    # Only who installs the extra has it.
    try:
        shtab = importlib.import_module("shtab")
    except ImportError as error:
        raise HarnessFailedError(
            'expected the library shtab, found none; pip install "canonical-saver[completion]"'
        ) from error
    print(shtab.complete(given.parser, shell=given.shell))
    return CONFORMS


def _read_patterns(text: str) -> tuple[str, ...]:
    try:
        select_modes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    names = [part.strip() for part in text.split(",") if part.strip()]
    return tuple("*" if name == "all" else name for name in names)
