"""Checks name their clause once, where they are registered."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

from saver_conformance import checks, folder_check
from saver_conformance.cases.case import Case, Mode
from saver_conformance.checks.registry import Check
from saver_conformance.folder_check import FolderCheck, Remark
from saver_conformance.folder_check.folder import WHOLE_CASE, Folder
from saver_conformance.observation.finding import Defect, Finding

CLAUSE = re.compile(r"[A-Z]+-\d{3}")
SINGLE = Case(Mode("full", "single"))


def clauses_named_in(path: Path) -> list[str]:
    """Ids of clauses that are strings of their own in a module."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    texts = [node.value for node in nodes if isinstance(node, ast.Constant)]
    return [text for text in texts if isinstance(text, str) and CLAUSE.fullmatch(text)]


@pytest.mark.parametrize("package", [checks, folder_check], ids=lambda package: package.__name__)
def test_check_modules_name_each_clause_once(package) -> None:
    modules = Path(package.__file__).parent.glob("*.py")
    # The audit reads bytes, which no check does, and says which clause unreadable ones break.
    named = Counter(
        clause
        for module in modules
        if module.name != "audit.py"
        for clause in clauses_named_in(module)
    )
    assert len(named) > 20
    assert {clause: times for clause, times in named.items() if times > 1} == {}


def test_defect_becomes_a_finding_with_all_that_it_says() -> None:
    defect = Defect("one", "another", file="x", tensor="t", shape=(1,), ended="it hung", rank=2)
    finding = defect.finding("FILES-001", SINGLE)
    assert (finding.clause, finding.case) == ("FILES-001", SINGLE)
    assert finding == Finding(
        expected="one",
        found="another",
        file="x",
        tensor="t",
        shape=(1,),
        ended="it hung",
        rank=2,
        clause="FILES-001",
        case=SINGLE,
    )


def test_folder_check_supplies_the_clause_and_passes_remarks_on(tmp_path: Path) -> None:
    folder = Folder(tmp_path, "", WHOLE_CASE, {})
    remark = Remark("odd")
    check = FolderCheck("FILES-009", lambda _: iter([Defect("a", "b"), remark]), False)
    found, passed = check.find(folder)
    assert isinstance(found, Finding)
    assert (found.clause, found.case) == ("FILES-009", WHOLE_CASE)
    assert passed is remark


def test_check_supplies_the_clause(tmp_path: Path) -> None:
    folder = Folder(tmp_path, "", WHOLE_CASE, {})
    check = Check("FILES-009", lambda _: iter([Defect("a", "b")]), lambda _: True)
    assert [item.clause for item in check.find(folder)] == ["FILES-009"]
