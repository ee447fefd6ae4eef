"""The commands ``merge``, ``compare`` and ``site``: what is made of reports."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saver_conformance.reports import report_diff_text, site
from saver_conformance.reports.merge import merge
from saver_conformance.reports.report_diff import compare_collections
from saver_conformance.reports.report_folder import prepare
from saver_conformance.reports.report_json import write_report
from saver_conformance.reports.result import read_results
from saver_conformance.reports.terminal import make_console, print_verdict
from saver_conformance.verdict.verdict import BROKEN, CONFORMS, HARNESS_FAILED

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[Any]

_PLACE = "a report.json, the folder of one, or a folder with some below"


def add_commands(commands: Commands) -> None:
    """Add the three commands to the parser of the command line."""
    merging = commands.add_parser(
        "merge",
        help="make the report of a run of the reports of its shards",
        description="The reports are those of run --shard 1/N to N/N. The verdict is that of a "
        "run in one piece, with the waivers that the shards were given.",
        epilog="Exit codes: those of run; 3 too where the reports are not all shards of one run."
        "\n\n"
        "Example:\n  saver-conformance merge report-1 report-2 --out report",
    )
    merging.add_argument("reports", nargs="+", type=Path, metavar="REPORT", help=_PLACE)
    merging.add_argument(
        "--out", type=Path, metavar="DIR", required=True, help="folder for the report of the whole"
    )
    merging.set_defaults(command=_merge)

    comparing = commands.add_parser(
        "compare",
        help="say what broke and what was fixed between two reports",
        description="Reports are paired by saver where a side has several.",
        epilog="Exit codes: 0 nothing broke; 1 a MUST that held is broken; 3 a report cannot be "
        "read.\n\n"
        "Example:\n  saver-conformance compare old new --markdown",
    )
    comparing.add_argument("old", type=Path, metavar="OLD", help=_PLACE)
    comparing.add_argument("new", type=Path, metavar="NEW", help=_PLACE)
    comparing.add_argument(
        "--markdown", action="store_true", help="print Markdown, for a comment on a change"
    )
    comparing.set_defaults(command=_compare)

    showing = commands.add_parser(
        "site",
        help="compare the savers of many reports on one page",
        description="Reports that ran no case are withheld, and named. A saver with several "
        "reports is shown over versions.",
        epilog="Exit codes: 0 written, whatever the verdicts are; 3 a report cannot be read, or "
        "there is none that ran something.\n\n"
        "Example:\n  saver-conformance site results --out site",
    )
    showing.add_argument("results", nargs="+", type=Path, metavar="RESULTS", help=_PLACE)
    shape = showing.add_mutually_exclusive_group(required=True)
    shape.add_argument("--out", type=Path, metavar="DIR", help="folder for the page")
    shape.add_argument(
        "--text",
        choices=tuple(site.TABLES),
        nargs="?",
        const="areas",
        help="print the matrix in Markdown instead, by areas or by modes",
    )
    showing.set_defaults(command=_site)


def _merge(given: argparse.Namespace) -> int:
    verdict, environment = merge(given.reports)
    prepare(given.out)
    console = make_console()
    print_verdict(console, verdict, given.out)
    page = write_report(verdict, given.out, environment)
    console.print(f"report: {page}", markup=False, soft_wrap=True)
    return verdict.exit_code


def _compare(given: argparse.Namespace) -> int:
    history = compare_collections(read_results([given.old]), read_results([given.new]))
    print((report_diff_text.markdown if given.markdown else report_diff_text.plain)(history))
    return BROKEN if history.has_broken else CONFORMS


def _site(given: argparse.Namespace) -> int:
    found = site.collect(given.results)
    for line in found.withheld:
        print(f"saver-conformance: withheld: {line}", file=sys.stderr)
    if not found.results:
        print("saver-conformance: no report ran a case", file=sys.stderr)
        return HARNESS_FAILED
    if given.text:
        print(site.TABLES[given.text](found.results))
    else:
        print(f"the page is {site.write(found.results, given.out)}")
    return CONFORMS
