"""Counts the code lines that somebody reads to know what a save does.

``python -m tests.house.reading_path`` prints each module that a plain save of a whole model goes
through, with its lines of code: no blank lines, comments or docstrings. These are the modules that
``canonical_saver.save`` imports when it is imported, and the format that is taken if none is named.
What is added for readers of other versions is apart: it changes files that are there already.
"""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path

from tests.house.imports import imports, modules, reachable

PACKAGE = "canonical_saver"
STARTS = (f"{PACKAGE}.save", f"{PACKAGE}.formats.safetensors")
LIMIT = 1600
"""Lines of code that the reading path has at most.

It is what every save runs: the request, the names and places of tensors, the plan and its proof,
the writer, the files beside the weights and the folder that is replaced as a whole or not at all.
What only some saves run is imported by them alone: agreement and messages among ranks, engines,
adapters, tied weights, conversions of names, options, shards, files of an earlier save, mounts that
cannot do all, and what to say of errors. A test compares the path with the modules that a plain
save has loaded.
"""

_NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


def reading_path() -> dict[str, int]:
    """The modules on the path, in order of their names, with their lines of code."""
    edges: dict[str, set[str]] = {}
    for found in imports(PACKAGE):
        if found.at_start and not found.for_types:
            edges.setdefault(found.importer, set()).add(found.imported)
    known = modules(PACKAGE)
    path = set().union(*(reachable(start, edges) for start in STARTS))
    return {name: code_lines(known[name]) for name in sorted(path)}


def code_lines(path: Path) -> int:
    """Lines with code on them."""
    source = path.read_text(encoding="utf-8")
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - _docstring_lines(ast.parse(source)))


def _docstring_lines(tree: ast.Module) -> set[int]:
    """Lines of strings that stand alone, as docstrings and those below constants do."""
    return {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }


def main() -> None:
    """Print the path and its length."""
    path = reading_path()
    for name, count in path.items():
        print(f"{count:5}  {name}")
    print(f"{sum(path.values()):5}  lines of code in {len(path)} modules (limit {LIMIT})")


if __name__ == "__main__":
    main()
