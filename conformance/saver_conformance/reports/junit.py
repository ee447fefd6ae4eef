"""A result as JUnit's XML: one suite for each mode, one test for each clause.

What is a failure on the command line is a failure or an error here, and nothing else is: a
deviation, a waived clause and one that the saver has no part in are skipped, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable
from xml.etree import ElementTree as ET

from saver_conformance.reports.plain_text import evidence_text, failure_lines, told_failures
from saver_conformance.reports.result import Result, Row
from saver_conformance.reports.status import WORDS, sentence
from saver_conformance.verdict.verdict import BROKEN, CONFORMS


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
    clause = result.clauses[row.clause]
    if row.status == "fail":
        _add(test, "failure", clause.text, _tell(row))
    elif row.status in ("deviation", "waived", "not claimed"):
        _add(
            test, "skipped", f"{WORDS[row.status]}: {clause.text} {row.reason}".strip(), _tell(row)
        )
    elif row.status in ("unavailable", "error"):
        tag = "error" if clause.level == "MUST" else "skipped"
        _add(test, tag, f"{WORDS[row.status]}: {clause.text}", row.reason)
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


def _tell(row: Row) -> str:
    return "" if row.evidence is None else evidence_text(row.evidence)
