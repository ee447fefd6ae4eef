"""Class names of the causal language models that the installed transformers knows."""

from __future__ import annotations

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_TABLE = "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"


@cache
def causal_lm_class_names() -> tuple[str, ...]:
    """All names, sorted; read from the library's source, which is too heavy to import here."""
    spec = find_spec("transformers")
    if spec is None or spec.origin is None:
        return ()
    source = Path(spec.origin).parent / "models" / "auto" / "modeling_auto.py"
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == _TABLE:
            assert isinstance(node.value, ast.Call)
            return tuple(sorted({name for _, name in ast.literal_eval(node.value.args[0])}))
    raise LookupError(f"{source} has no {_TABLE}")


def one_for_each_letter(letters: str) -> tuple[str, ...]:
    """The first name that begins with each of ``letters``, where there is one."""
    names = causal_lm_class_names()
    found = (next((name for name in names if name[0] == letter), None) for letter in letters)
    return tuple(name for name in found if name is not None)
