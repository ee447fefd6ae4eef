"""A result as JUnit's XML: one suite for each mode, one test for each clause.

``outcome`` says what is a failure, an error or skipped.
"""

from __future__ import annotations

from collections.abc import Iterable
from xml.etree import ElementTree as ET

from saver_conformance.reports.outcome import outcome_of
from saver_conformance.reports.plain_text import failure_lines, told_failures
from saver_conformance.reports.result import Result, Row
from saver_conformance.reports.status import sentence
from saver_conformance.verdict.verdict import BROKEN, CONFORMS

_TAGS = {"failed": "failure", "error": "error", "skipped": "skipped"}


def render(result: Result) -> str:
    """The content of ``junit.xml``."""
    root = ET.Element("testsuites", name="saver-conformance", time=f"{result.seconds:.1f}")
    for mode in result.modes:
        rows = [row for row in result.rows if row.mode == mode]
        _add_suite(root, result, mode, [_test(result, row) for row in rows])
    _add_suite(root, result, "verdict", [_verdict_test(result)])
    for name in ("tests", "failures", "errors", "skipped"):
        root.set(name, str(sum(int(suite.get(name, "0")) for suite in root)))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _add_suite(root: ET.Element, result: Result, name: str, tests: Iterable[ET.Element]) -> None:
    suite = ET.SubElement(root, "testsuite", name=name, timestamp=result.time.rstrip("Z"))
    suite.extend(tests)
    suite.set("tests", str(len(suite)))
    for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(attribute, str(len(suite.findall(f"testcase/{tag}"))))


def _test(result: Result, row: Row) -> ET.Element:
    test = ET.Element("testcase", classname=f"{result.saver}.{row.mode}", name=row.clause)
    outcome, text = outcome_of(result, row.clause, row.mode), result.clauses[row.clause].text
    if outcome.kind != "passed":
        message = text if outcome.kind == "failed" else f"{outcome.message} ({text})"
        _add(test, _TAGS[outcome.kind], message, outcome.details or row.reason)
    return test


def _verdict_test(result: Result) -> ET.Element:
    """Fails where the run does: for a wrong waiver or a missing case too."""
    test = ET.Element("testcase", classname=result.saver, name="verdict")
    if result.exit_code != CONFORMS:
        tag = "failure" if result.exit_code == BROKEN else "error"
        failures = ("\n".join(failure_lines(result, item)) for item in told_failures(result))
        _add(test, tag, sentence(result), "\n\n".join((*failures, *result.waiver_faults)))
    return test


def _add(test: ET.Element, tag: str, message: str, text: str) -> None:
    ET.SubElement(test, tag, message=message).text = text
