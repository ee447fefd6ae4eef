"""Classes, modules and fields have none of the names that were given up.

``fixtures/prose.toml`` has those that are no words of the field at all, which no file may contain.
The names here are ordinary words, so that only what carries one of them as its name is wrong.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.house.imports import modules

MODULES = {
    "canonical_saver": {"disk", "modules", "pinned", "ranks", "sources", "stale", "transfers"},
    "saver_conformance": {
        *("bench", "changes", "conclusion", "continuation", "crashing", "differing", "harness"),
        *("shown", "stacks"),
    },
}
CLASSES = {
    "canonical_saver": {
        *("Batch", "Entry", "Goal", "Goals", "Placed", "Run", "Source", "Span", "Tell", "Transfer"),
        "Weights",
    },
    "saver_conformance": {"Judge"},
}
FIELDS = {
    "canonical_saver": {"asked", "memory", "sees", "sets"},
    "saver_conformance": {"occupied", "persist", "trial"},
}


def given_up(package: str, module: str, path: Path) -> Iterator[str]:
    """What a module still calls by an old name: itself, its classes, the fields of these."""
    if module.rpartition(".")[2] in MODULES[package]:
        yield module
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef):
            if node.name.lstrip("_") in CLASSES[package]:
                yield f"{module}.{node.name}"
            fields = [
                ast.unparse(one.target) for one in node.body if isinstance(one, ast.AnnAssign)
            ]
            for field in FIELDS[package].intersection(fields):
                yield f"{module}.{node.name}.{field}"


@pytest.mark.parametrize("package", MODULES)
def test_package_has_no_name_that_was_given_up(package: str) -> None:
    assert not [
        name
        for module, path in modules(package).items()
        for name in given_up(package, module, path)
    ]


def test_given_up_finds_modules_classes_and_fields(tmp_path: Path) -> None:
    path = tmp_path / "pinned.py"
    path.write_text("class _Placed:\n    sees: bool\n")
    found = list(given_up("canonical_saver", "canonical_saver.pinned", path))
    assert found == [
        "canonical_saver.pinned",
        "canonical_saver.pinned._Placed",
        "canonical_saver.pinned._Placed.sees",
    ]
