"""The public names are listed for type checkers as the package has them."""

from __future__ import annotations

import ast

from tests.house.imports import HOMES

PACKAGE = HOMES["canonical_saver"] / "canonical_saver"


def test_stub_has_the_names_of_the_package_and_their_modules() -> None:
    package = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8")).body
    (names,) = (
        ast.literal_eval(node.value)
        for node in package
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_NAMES"
    )
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8")).body
    imported = {
        one.name: str(node.module)
        for node in stub
        if isinstance(node, ast.ImportFrom)
        for one in node.names
    }
    (listed,) = (ast.literal_eval(node.value) for node in stub if isinstance(node, ast.Assign))
    assert imported == {name: f"canonical_saver.{home}" for home in names for name in names[home]}
    assert listed == sorted(imported)
