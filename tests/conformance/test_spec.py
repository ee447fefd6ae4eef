"""The spec can be read, and clauses and checks name each other."""

import re
from importlib import resources

import pytest

from saver_conformance.cases.case import MODES
from saver_conformance.checks import checks
from saver_conformance.spec import AREAS, SPEC, SpecError, clauses_for, parse

CLAUSE = """## FILES: files

### FILES-001 A title

- level: MUST
- modes: full-*, lora-ddp
- since: 0.1

One sentence
on two lines.

Reason: because.
"""


def test_every_clause_has_a_check_and_every_check_a_clause():
    assert [check.clause for check in checks()] == list(SPEC)


def test_every_clause_is_one_sentence():
    for clause in SPEC.values():
        assert clause.text.endswith("."), clause.id
        assert not re.search(r"\. [A-Z]", clause.text), clause.id


def test_every_mode_has_clauses_of_every_area_that_concerns_it():
    for mode in MODES:
        areas = {clause.area for clause in clauses_for(mode)}
        foreign = set() if mode.is_adapter else {"ADAPTER"}
        assert areas == set(AREAS) - foreign


def test_every_pattern_matches_a_mode():
    for clause in SPEC.values():
        for pattern in clause.modes:
            assert any(mode.matches((pattern,)) for mode in MODES), clause.id


def test_clause_is_read():
    clause = parse(CLAUSE)["FILES-001"]
    assert clause.area == "FILES"
    assert clause.title == "A title"
    assert clause.modes == ("full-*", "lora-ddp")
    assert clause.text == "One sentence on two lines."
    assert clause.reason == "because."


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("MUST", "OUGHT"),
        ("FILES-001", "PLACES-001"),
        ("- since: 0.1\n", ""),
        ("Reason: because.", ""),
        ("FILES-001", "FILES-1"),
    ],
)
def test_other_forms_are_refused(old, new):
    with pytest.raises(SpecError):
        parse(CLAUSE.replace(old, new))


def test_repeated_id_is_refused():
    with pytest.raises(SpecError, match="twice"):
        parse(CLAUSE + CLAUSE)


def test_spec_lies_in_the_package():
    assert resources.files("saver_conformance").joinpath("spec.md").is_file()
