"""The commands ``read`` and ``readers``: what the programs that serve models make of a folder."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from saver_conformance.commands.folder import find_folder
from saver_conformance.errors import ComparisonError
from saver_conformance.readers import environment
from saver_conformance.readers.environment import EnvironmentUnavailableError
from saver_conformance.readers.question import NoQuestionError, ask_about
from saver_conformance.readers.reader import Reader, ReaderError
from saver_conformance.readers.registry import choose
from saver_conformance.readers.report_text import as_plain, describe
from saver_conformance.readers.session import Session
from saver_conformance.verdict.verdict import BROKEN, CONFORMS, INCONCLUSIVE


def add_commands(commands: Any) -> None:
    """Add both commands to the parser of the command line."""
    read = commands.add_parser(
        "read",
        help="load a saved folder with the programs that serve models, and compare what they get",
        description="Each reader runs in an environment of its own; see 'readers list'. Token ids "
        "are compared with the folder's tokenizer.json as it is, scores with those of the newest "
        "transformers in float32.",
        epilog="Exit codes: 0 every reader that is made for the folder gets it right; 1 a reader "
        "gets something else, or refuses; 2 a reader that was named cannot run here, or nothing "
        "was compared; 3 the command was called wrongly.\n\n"
        "Example:\n  saver-conformance read out --reader tokenizers",
    )
    read.add_argument("folder", type=find_folder, metavar="DIR")
    read.add_argument(
        "--reader",
        nargs="+",
        action="extend",
        metavar="NAME",
        help="names in 'readers list', fast, all, or the path of a program (default: all that are "
        "installed)",
    )
    read.add_argument(
        "--base", type=find_folder, metavar="BASE", help="the model that the adapter DIR is for"
    )
    read.add_argument("--json", action="store_true", help="print JSON instead of text")
    read.set_defaults(command=run_read)

    readers = commands.add_parser(
        "readers",
        help="list the readers, or install them",
        epilog="Example:\n  saver-conformance readers list",
    )
    actions = readers.add_subparsers(required=True, metavar="ACTION")
    actions.add_parser(
        "list",
        help="what there is, and what is installed",
        epilog="Example:\n  saver-conformance readers list",
    ).set_defaults(command=run_list)
    install = actions.add_parser(
        "install",
        help="make the environment of readers, each once",
        epilog="Exit codes: 0 all are there; 2 one cannot be made here, and the reason is told.\n\n"
        "Example:\n  saver-conformance readers install tokenizers",
    )
    install.add_argument("names", nargs="*", metavar="NAME")
    install.add_argument("--all", action="store_true", dest="every", help="all readers")
    install.set_defaults(command=run_install)


def run_read(given: argparse.Namespace) -> int:
    """Have a folder read."""
    readers = _choose(given.reader or ["all"])
    if not given.reader:
        readers = tuple(reader for reader in readers if environment.is_made(reader))
        if not readers:
            raise ComparisonError(
                "no reader is installed; run: saver-conformance readers install transformers "
                "tokenizers, or name others of 'readers list'"
            )
    try:
        question = ask_about(_absolute(given.folder), given.base and _absolute(given.base))
    except NoQuestionError as error:
        raise ComparisonError(str(error)) from error
    with Session(readers) as session:
        standard = session.standard_of(question)
        readings = session.read(question, standard)
    if given.json:
        print(json.dumps(as_plain(readings, standard.origin), indent=1))
    else:
        print(*describe(readings, standard.origin), sep="\n")
    outcomes = {reading.outcome for reading in readings}
    if outcomes & {"wrong", "refused"}:
        return BROKEN
    return CONFORMS if "right" in outcomes and "unavailable" not in outcomes else INCONCLUSIVE


def run_list(_: argparse.Namespace) -> int:
    """Print every reader."""
    for reader in _choose(["all"]):
        state = "installed" if environment.is_made(reader) else "not installed"
        speed = "fast" if reader.fast else "slow"
        print(f"{reader.name:<16} {state:<14} {speed:<5} {reader.text}")
    return CONFORMS


def run_install(given: argparse.Namespace) -> int:
    """Make environments."""
    if not given.names and not given.every:
        raise ComparisonError("expected names of readers, or --all")
    code = CONFORMS
    for reader in _choose(["all"] if given.every else given.names):
        try:
            seconds = environment.make(reader)
            where = environment.place_of(reader) if reader.has_environment else "none is needed"
            print(f"{reader.name}: installed in {seconds:g} s: {where}", flush=True)
        except EnvironmentUnavailableError as error:
            print(f"{reader.name}: unavailable: {error}", flush=True)
            code = INCONCLUSIVE
    return code


def _choose(names: list[str]) -> tuple[Reader, ...]:
    try:
        return choose(names)
    except ReaderError as error:
        raise ComparisonError(str(error)) from error


def _absolute(folder: Path) -> Path:
    return folder.resolve()
