"""The examples in docstrings: each runs, and what the API reference lists as a function has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import transformers
from tests.helpers.models import llama
from tests.house.imports import modules

ROOT = Path(__file__).parents[2]
PACKAGES = ("canonical_saver", "saver_conformance")
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
SOURCES = {
    name: path.read_text() for package in PACKAGES for name, path in modules(package).items()
}


def examples() -> Iterator[doctest.DocTest]:
    """The docstrings with examples, of every module that has one."""
    for name in sorted(name for name, source in SOURCES.items() if ">>> " in source):
        for found in doctest.DocTestFinder().find(importlib.import_module(name)):
            if found.examples:
                yield found


EXAMPLES = list(examples())


@pytest.fixture
def reader(tmp_path: Path) -> dict[str, Any]:
    """What the API reference says that a reader has."""
    model = llama()
    folder = tmp_path / "folder"
    folder.mkdir()
    settings = transformers.TrainingArguments(str(tmp_path / "trainer"), use_cpu=True, report_to=[])
    return {"model": model, "folder": folder, "trainer": transformers.Trainer(model, settings)}


@pytest.mark.parametrize("example", [pytest.param(item, id=item.name) for item in EXAMPLES])
def test_example_does_what_it_shows(
    example: doctest.DocTest, reader: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    example.globs = {**example.globs, **reader}
    result = doctest.DocTestRunner(optionflags=FLAGS).run(example)
    assert result.failed == 0, capsys.readouterr().out
    assert result.attempted == len(example.examples)


def listed() -> Iterator[tuple[str, Any]]:
    """The functions and callbacks of the pages of the API."""
    for page in ("api-saver.md", "api-suite.md"):
        text = (ROOT / "docs" / "reference" / page).read_text()
        for entry in text.split("\n::: ")[1:]:
            address = entry.split(maxsplit=1)[0]
            members = re.search(r"members: \[(.*)\]", entry)
            inside = (
                [f"{address}.{name.strip()}" for name in members[1].split(",")] if members else []
            )
            for name in [address, *inside]:
                module, _, attribute = name.rpartition(".")
                if module in SOURCES and attribute:
                    found = getattr(importlib.import_module(module), attribute, None)
                    if inspect.isfunction(found) or attribute.endswith("Callback"):
                        yield name, found


def test_every_function_of_the_api_reference_has_an_example() -> None:
    functions = dict(listed())
    assert len(functions) >= 12
    without = {name for name, found in functions.items() if ">>> " not in (found.__doc__ or "")}
    # It runs for minutes; `replay` shows the same with one case.
    assert without == {"saver_conformance.run.run_conformance"}
