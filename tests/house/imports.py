"""Which module of a package imports which, read from its source without importing it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOMES = {"canonical_saver": ROOT / "reference", "saver_conformance": ROOT / "conformance"}
"""The folder that each package lies in."""


@dataclass(frozen=True)
class Import:
    """One module imports another of its package.

    Attributes:
        importer: the module that imports.
        imported: the module that is imported.
        at_start: it happens when the importer is imported, and not in a function.
        for_types: only type checkers see it.
    """

    importer: str
    imported: str
    at_start: bool
    for_types: bool


def modules(package: str) -> dict[str, Path]:
    """The modules of a package by their names, with their files."""
    home = HOMES[package]
    return {
        ".".join(path.relative_to(home).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted((home / package).rglob("*.py"))
    }


def imports(package: str) -> Iterator[Import]:
    """All imports among the modules of a package."""
    known = modules(package)
    for importer, path in known.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        yield from _imports_in(tree.body, importer, known, at_start=True, for_types=False)


def _imports_in(
    body: list[ast.stmt], importer: str, known: dict[str, Path], *, at_start: bool, for_types: bool
) -> Iterator[Import]:
    for node in body:
        if isinstance(node, ast.ImportFrom | ast.Import):
            for imported in _targets(node, known) - {importer}:
                yield Import(importer, imported, at_start, for_types)
            continue
        types = for_types or (
            isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        )
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for name in ("body", "orelse", "finalbody"):
            yield from _imports_in(
                getattr(node, name, []),
                importer,
                known,
                at_start=at_start and not inside,
                for_types=types,
            )
        for handler in getattr(node, "handlers", []):
            yield from _imports_in(
                handler.body, importer, known, at_start=at_start and not inside, for_types=types
            )


def _targets(node: ast.ImportFrom | ast.Import, known: dict[str, Path]) -> set[str]:
    """Modules of the package that a statement names; ``from a import b`` may name ``a.b``."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names if alias.name in known}
    found = {f"{node.module}.{alias.name}" for alias in node.names}
    named = {name if name in known else str(node.module) for name in found}
    return named & known.keys()


def cycle(edges: dict[str, set[str]]) -> list[str]:
    """One cycle among ``edges``, its first module again at the end; empty if there is none."""
    done: set[str] = set()
    for start in edges:
        path: list[str] = []
        if found := _walk(start, edges, path, done):
            return found
    return []


def _walk(name: str, edges: dict[str, set[str]], path: list[str], done: set[str]) -> list[str]:
    if name in path:
        return [*path[path.index(name) :], name]
    if name in done:
        return []
    path.append(name)
    for other in sorted(edges.get(name, ())):
        if found := _walk(other, edges, path, done):
            return found
    done.add(path.pop())
    return []


def reachable(start: str, edges: dict[str, set[str]]) -> set[str]:
    """What is imported with a module, itself too; parent packages are imported first."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        waiting += edges.get(name, ())
        if "." in name:
            waiting.append(name.rpartition(".")[0])
    return found
