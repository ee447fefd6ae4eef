"""Which test files are quick: they import nothing that trains models or starts processes.

``pytest --quick`` collects these files only, and ``nox -s quick`` runs them where no such library
is installed. A file joins by what it imports; nothing lists it. ``python -m tests.house.quick``
prints the files, and for each of the others what keeps it out. A test in such a file that takes
seconds, or needs more than its file says, is marked ``slow``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOMES = {
    "canonical_saver": ROOT / "reference",
    "saver_conformance": ROOT / "conformance",
    "benchmarks": ROOT,
    "fixtures": ROOT,
    "tests": ROOT,
}
"""The folder that each package of the repository lies in."""

LIBRARIES = frozenset(
    {
        "accelerate",
        "bitsandbytes",
        "datasets",
        "deepspeed",
        "matplotlib",
        "numpy",
        "peft",
        "safetensors",
        "selenium",
        "torch",
        "tqdm",
        "transformers",
        "trl",
    }
)
"""What a quick test does without, in whatever it imports."""
PROCESSES = (
    "multiprocessing",
    "pytester",
    "saver_conformance.execution.case_runner",
    "saver_conformance.execution.workload",
    "saver_conformance.processes.forked_save",
    "saver_conformance.processes.operators",
    "saver_conformance.processes.reloader",
    "saver_conformance.processes.world",
    "saver_conformance.run",
    "subprocess",
)
"""What starts processes: a quick test imports none of them itself, nor do its helpers."""
TESTS = ("tests.", "fixtures.")
"""Beginnings of the modules that are tests and their helpers."""


def quick_files() -> tuple[Path, ...]:
    """The quick test files of the repository."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return tuple(path for path in files if why_not(path) is None)


@cache
def why_not(path: Path) -> str | None:
    """What makes a test file no quick one, with the way to it; None if nothing does."""
    waiting = [
        (name, name, True) for name in (*_imports_of(path, everywhere=True), *_plugins(path))
    ]
    if fixture := next(_heavy_fixtures(path), None):
        return f"the fixture {fixture}"
    seen: set[str] = set()
    while waiting:
        name, way, is_direct = waiting.pop()
        if name.partition(".")[0] in LIBRARIES or (is_direct and _starts_processes(name)):
            return way
        source = _file_of(name)
        if source is None or name in seen:
            continue
        seen.add(name)
        is_helper = name.startswith(TESTS)
        for other in _imports_of(source, everywhere=is_helper):
            waiting.append((other, f"{way} > {other}", is_helper))
    return None


def _starts_processes(name: str) -> bool:
    return any(name == heavy or name.startswith(f"{heavy}.") for heavy in PROCESSES)


def _plugins(path: Path) -> tuple[str, ...]:
    """Plugins of pytest that a file asks for."""
    return tuple(
        str(ast.literal_eval(value))
        for node in ast.parse(path.read_bytes()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytest_plugins"
        for value in getattr(node.value, "elts", ())
    )


def _heavy_fixtures(path: Path) -> Iterator[str]:
    """Fixtures that a test file uses, of a ``conftest.py`` that starts processes."""
    for folder in path.parents:
        shared = folder / "conftest.py"
        if shared.is_file() and any(map(_starts_processes, _imports_of(shared, everywhere=True))):
            used = _words_of(path)
            nodes = ast.parse(shared.read_bytes()).body
            yield from (
                node.name
                for node in nodes
                if isinstance(node, ast.FunctionDef) and node.decorator_list and node.name in used
            )
        if folder == ROOT:
            return


def _words_of(path: Path) -> frozenset[str]:
    """The names of arguments, and the strings, in a file."""
    nodes = list(ast.walk(ast.parse(path.read_bytes())))
    strings = {node.value for node in nodes if isinstance(node, ast.Constant)}
    return frozenset(
        {node.arg for node in nodes if isinstance(node, ast.arg)}
        | {text for text in strings if isinstance(text, str)}
    )


@cache
def _imports_of(path: Path, *, everywhere: bool) -> tuple[str, ...]:
    """The modules that a file names in imports, and the packages around them.

    Args:
        path: the file.
        everywhere: whether imports inside functions count too.
    """
    tree = ast.parse(path.read_bytes())
    nodes = ast.walk(tree) if everywhere else _at_start(tree.body)
    found: list[str] = []
    for node in nodes:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    packages = [name.rsplit(".", up)[0] for name in found for up in range(1, name.count(".") + 1)]
    return tuple(dict.fromkeys((*found, *packages)))


def _at_start(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run when a module is imported."""
    for node in body:
        yield node
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if not (is_function or for_types):
            for name in ("body", "orelse", "finalbody"):
                yield from _at_start(getattr(node, name, []))


def _file_of(name: str) -> Path | None:
    """The file of a module of the repository; None for any other."""
    home = HOMES.get(name.partition(".")[0])
    if home is None:
        return None
    path = home.joinpath(*name.split("."))
    places = (path / "__init__.py", path.with_suffix(".py"))
    return next((place for place in places if place.is_file()), None)


if __name__ == "__main__":
    for test in sorted((ROOT / "tests").rglob("test_*.py")):
        reason = why_not(test)
        print(test.relative_to(ROOT), "quick" if reason is None else f"imports {reason}")
