"""Savers that lie around: those below ``fixtures/`` of a folder, found without running anything."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

FIXTURES = "fixtures"
"""Folder of packages of savers."""


def list_savers(folder: Path) -> Iterator[str]:
    """The addresses of the savers below ``folder / "fixtures"``, importable from ``folder``.

    A saver is a public function that takes ``cfg, trainer, model``, or one that a decorator makes
    into such a function.
    """
    for path in sorted((folder / FIXTURES).glob("*/*.py")):
        if path.stem.startswith("_"):
            continue
        module = ".".join(path.relative_to(folder).with_suffix("").parts)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                parameters = [argument.arg for argument in node.args.args]
                if node.decorator_list or parameters == ["cfg", "trainer", "model"]:
                    yield f"{module}:{node.name}"
