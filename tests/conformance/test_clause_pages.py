"""Every clause has a mutant, and its page in the docs is current."""

import re

from fixtures.clause_pages import PAGES, make_pages
from fixtures.mutants import all_mutants

from saver_conformance.cases.case import Mode
from saver_conformance.cases.strategies import make_case
from saver_conformance.checks import applicable
from saver_conformance.spec import SPEC


def test_every_clause_has_a_mutant():
    broken = set().union(*(mutant.breaks for mutant in all_mutants()))
    assert set(SPEC) - broken == set()


def test_the_clauses_pages_are_current():
    kept = {path.name: path.read_text(encoding="utf-8") for path in PAGES.glob("*.md")}
    assert kept == make_pages(), "run: python -m fixtures.clause_pages"


def test_the_clauses_pages_lead_somewhere():
    pages = make_pages()
    for text in pages.values():
        for target in re.findall(r"\]\((.+?)\)", text):
            path, _, fragment = target.partition("#")
            assert (PAGES / path).is_file(), target
            text_there = pages.get(path) or (PAGES / path).read_text(encoding="utf-8")
            if fragment:
                clause = re.match(r"[a-z]+-\d+", fragment)
                assert clause, target
                assert f"## {clause[0].upper()}" in text_there, target


def test_mutants_declare_clauses_that_apply():
    for mutant in all_mutants():
        assert mutant.breaks, mutant.address
        for name in mutant.modes:
            case = make_case(Mode.parse(name), mutant.axes)
            assert mutant.breaks - set(applicable(case, "in this case")) == set(), (
                mutant.address,
                name,
            )
