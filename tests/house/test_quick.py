"""Quick tests are found by what they import."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.house.quick import ROOT, quick_files, why_not


@pytest.mark.parametrize(
    "text",
    [
        "import torch",
        "def test_it():\n    from transformers import LlamaConfig",
        "import subprocess",
        "from saver_conformance import run",
        "from saver_conformance.run import replay",
        "from saver_conformance.workload.models import build",
        "from canonical_saver.save import save_model",
        'pytest_plugins = ["pytester"]',
        "from tests.helpers import saved_folders",
    ],
)
def test_why_not_names_what_a_slow_file_imports(tmp_path: Path, text: str) -> None:
    path = tmp_path / "test_slow.py"
    path.write_text(text)
    assert why_not(path)


@pytest.mark.parametrize(
    "text",
    [
        "import json\nimport pytest",
        "from saver_conformance.spec import SPEC",
        "from saver_conformance import cli",
        "from saver_conformance.cases.case import Case",
        "def test_it(subprocess): ...",
    ],
)
def test_why_not_is_none_for_a_pure_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "test_pure.py"
    path.write_text(text)
    assert why_not(path) is None


def test_why_not_names_a_fixture_that_starts_ranks() -> None:
    path = ROOT / "tests" / "conformance" / "test_mutants.py"
    assert why_not(path) == "the fixture shared_judge"


def test_quick_files_have_the_spec_the_pages_and_the_rooms() -> None:
    names = {path.name for path in quick_files()}
    assert {"test_spec.py", "test_pages.py", "test_quick.py", "test_known_savers.py"} <= names
