"""The order of the rooms of both packages, read from their imports."""

from __future__ import annotations

import pytest
from tests.house.imports import HOMES, cycle, imports, modules, reachable
from tests.house.reading_path import LIMIT, reading_path

PACKAGES = ("canonical_saver", "saver_conformance")

SUITE = (
    "commands",
    "getting_started",
    "witness",
    "environments",
    "reports",
    "execution",
    "comparison",
    ("processes", "folder_check", "readers"),
    "workload",
    "checks",
    "verdict",
    "folder",
    "observation",
    "claims",
    "cases",
)
"""The wings of the suite, from the top down: each imports only those below it."""

SAVER = ("proving", "publishing", "writing", "formats", "weights")
"""The rooms of the saver, from the top down."""

LEAVES = frozenset({"canonical_saver.formats.dcp"})
"""What is imported only when it is asked for, and uses what it needs from any room."""


def heights(order: tuple[str | tuple[str, ...], ...]) -> dict[str, int]:
    rows = [(row,) if isinstance(row, str) else row for row in order]
    return {name: -number for number, row in enumerate(rows) for name in row}


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 2 else ""


@pytest.mark.parametrize(("package", "order"), [(PACKAGES[0], SAVER), (PACKAGES[1], SUITE)])
def test_rooms_import_only_downwards(package: str, order: tuple[str, ...]) -> None:
    height = heights(order)
    packages = {name for name in modules(package) if name.count(".") == 1} & {
        f"{package}.{name}" for name in height
    }
    assert {name.rpartition(".")[2] for name in packages} == set(height)
    wrong = []
    for found in imports(package):
        if found.importer in LEAVES or found.for_types:
            continue
        start = room(found.importer) or (found.importer if found.importer in packages else "")
        end = room(found.imported) or (found.imported if found.imported in packages else "")
        start, end = start.rpartition(".")[2], end.rpartition(".")[2]
        if start in height and end in height and start != end and height[start] <= height[end]:
            wrong.append(f"{found.importer} imports {found.imported}")
    assert not wrong


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_have_no_cycle(package: str) -> None:
    edges: dict[str, set[str]] = {}
    for found in imports(package):
        if found.at_start and not found.for_types:
            edges.setdefault(found.importer, set()).add(found.imported)
    assert cycle(edges) == []


FOUNDATIONS = {
    "canonical_saver": {
        "collectives",
        "collator",
        "errors",
        "file_io",
        "from_trainer",
        "messages",
        "options",
        "progress",
        "request",
        "versions",
    },
    "saver_conformance": {"errors", "safe_text", "spec"},
}
"""Modules beside the rooms that rooms may import."""


@pytest.mark.parametrize("package", PACKAGES)
def test_rooms_import_only_foundations_beside_them(package: str) -> None:
    beside = {name for name in modules(package) if name.count(".") == 1} - {
        name.rpartition(".")[0] for name in modules(package) if name.count(".") == 2
    }
    wrong = [
        f"{found.importer} imports {found.imported}"
        for found in imports(package)
        if room(found.importer)
        and found.imported in beside
        and found.imported.rpartition(".")[2] not in FOUNDATIONS[package]
        and not (room(found.importer) == "commands" and found.imported.endswith(".run"))
    ]
    assert not wrong


def test_the_root_of_the_suite_is_a_table_of_contents() -> None:
    root = HOMES["saver_conformance"] / "saver_conformance"
    assert len(list(root.glob("*.py"))) <= 10


def test_pytest_plugin_does_without_the_command_line() -> None:
    edges: dict[str, set[str]] = {}
    for found in imports("saver_conformance"):
        edges.setdefault(found.importer, set()).add(found.imported)
    assert "saver_conformance.cli" not in reachable("saver_conformance.pytest_plugin", edges)


def test_reading_path_stays_short() -> None:
    assert sum(reading_path().values()) <= LIMIT


def test_a_save_imports_no_proof() -> None:
    assert not [name for name in reading_path() if name.startswith("canonical_saver.proving")]
