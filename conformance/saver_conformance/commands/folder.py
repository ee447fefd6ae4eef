"""The commands ``check`` and ``diff``."""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from saver_conformance.comparison.folder_diff import Begin, diff_folders
from saver_conformance.comparison.plain import audit_as_plain, diff_as_plain, training_as_plain
from saver_conformance.comparison.tensor_change import Advance
from saver_conformance.comparison.training_check import check_training
from saver_conformance.comparison.words import describe_diff, describe_training
from saver_conformance.errors import ComparisonError
from saver_conformance.folder_check.audit import audit
from saver_conformance.reports.audit_text import describe
from saver_conformance.verdict.verdict import BROKEN, CONFORMS, HARNESS_FAILED

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[Any]

_EVERY_HELP = "measure the values of all elements and rows, not of a part of large tensors"


def add_commands(commands: Commands) -> None:
    """Add both commands to the parser of the command line."""
    check = commands.add_parser(
        "check",
        help="look for defects in a saved folder, without training; did a fine-tune get in?",
        description="Structure only, unless a base is given: a folder without a defect need not "
        "hold the trained model. With --base its tensors are compared with those of the model "
        "that it was trained from, and with --adapter also with the adapter that was merged.",
        epilog="Exit codes: 0 no defects found; 1 a MUST is broken or could not be checked, or "
        "something is wrong for sure against the base; 3 the command was called wrongly.\n\n"
        "Examples:\n  saver-conformance check out\n"
        "  saver-conformance check out --base base --adapter adapter",
    )
    check.add_argument("folder", type=find_folder, metavar="DIR")
    check.add_argument(
        "--bytes",
        action="store_true",
        dest="read_bytes",
        help="read the weight files to their end, and print their digests",
    )
    check.add_argument(
        "--base", type=find_folder, metavar="BASE", help="the model that DIR was trained from"
    )
    check.add_argument(
        "--adapter", type=find_folder, metavar="A", help="the adapter that was merged into DIR"
    )
    check.add_argument("--every-element", action="store_true", help=_EVERY_HELP)
    check.add_argument("--json", action="store_true", help="print JSON instead of text")
    check.set_defaults(command=run_check)

    diff = commands.add_parser(
        "diff",
        help="compare two saved folders by content, whatever their shards and formats",
        epilog="Exit codes: 0 same; 1 the folders differ, or something could not be compared; 3 "
        "the command was called wrongly.\n\nExample:\n  saver-conformance diff out-a out-b",
    )
    diff.add_argument("first", type=find_folder, metavar="A")
    diff.add_argument("second", type=find_folder, metavar="B")
    diff.add_argument(
        "--any-dtype", action="store_true", help="values that are equal after a cast are the same"
    )
    diff.add_argument("--every-element", action="store_true", help=_EVERY_HELP)
    diff.add_argument("--json", action="store_true", help="print JSON instead of text")
    diff.set_defaults(command=run_diff)


def find_folder(name: str) -> Path:
    """The folder of this name, for argparse."""
    if not Path(name).is_dir():
        raise argparse.ArgumentTypeError(f"{name!r} is no folder")
    return Path(name)


def run_check(given: argparse.Namespace) -> int:
    """Look at the structure of a folder, and compare it with its base where one is given."""
    if given.adapter and not given.base:
        raise ComparisonError("--adapter needs --base, the model that the adapter was merged into")
    found = audit(given.folder, read_bytes=given.read_bytes)
    training = None
    if given.base:
        with _progress("comparing with the base") as begin:
            training = check_training(
                given.folder, given.base, given.adapter, every=given.every_element, begin=begin
            )
    if given.json:
        plain = {"structure": audit_as_plain(found)}
        _print_json(plain | {"training": training_as_plain(training) if training else None})
    else:
        _print(describe(found))
        if training:
            _print(["", *describe_training(training)])
    return CONFORMS if found.is_clean and (training is None or training.is_fine) else BROKEN


def run_diff(given: argparse.Namespace) -> int:
    """Compare two folders."""
    with _progress("comparing") as begin:
        found = diff_folders(
            given.first,
            given.second,
            every=given.every_element,
            any_dtype=given.any_dtype,
            begin=begin,
        )
    if given.json:
        _print_json(diff_as_plain(found))
    else:
        _print(describe_diff(found))
    if not found.parts and not found.only_first and not found.only_second:
        return HARNESS_FAILED
    return CONFORMS if found.is_same else BROKEN


@contextmanager
def _progress(what: str) -> Iterator[Begin]:
    """A bar on a terminal; nothing elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: _ignore
        return
    columns = (
        TextColumn(what),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:

        def begin(total: int) -> Advance:
            task = bar.add_task(what, total=total)
            return lambda count: bar.advance(task, count)

        yield begin


def _ignore(_: int) -> None: ...


def _print(lines: Any) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of untrusted files
    print(*lines, sep="\n")


def _print_json(plain: Any) -> None:
    print(json.dumps(plain, indent=1))
