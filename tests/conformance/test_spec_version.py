"""The spec has a version of its own, which reports name."""

from __future__ import annotations

import pytest

from saver_conformance.reports.environment import read_environment
from saver_conformance.spec import VERSION, SpecError, parse_version

CLAUSE = """
### FILES-001 A title

- level: MUST
- modes: *
- since: 0.10

One sentence.

Reason: because.
"""


def test_parse_version_reads_the_line() -> None:
    assert parse_version("# Spec\n\nVersion: 1.12\n") == "1.12"


def test_parse_version_without_a_line_is_an_error() -> None:
    with pytest.raises(SpecError, match="Version"):
        parse_version("# Spec\n")


def test_parse_version_that_is_older_than_a_clause_is_an_error() -> None:
    assert parse_version(f"Version: 0.10\n{CLAUSE}") == "0.10"
    with pytest.raises(SpecError, match="FILES-001"):
        parse_version(f"Version: 0.9\n{CLAUSE}")


def test_environment_of_a_report_names_the_version() -> None:
    assert read_environment("module:save").versions["spec"] == VERSION
