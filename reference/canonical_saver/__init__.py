"""The canonical way to save a fine-tuned model.

>>> from canonical_saver import save_trained_model
>>> report = save_trained_model({"output_dir": folder}, trainer, model)

Nothing is imported before it is used: the command line answers at once, and PEFT is imported for a
model that has adapters. Type checkers read the public names in ``__init__.pyi``.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

if _missing := " and ".join(n for n in ("torch", "transformers") if find_spec(n) is None):
    raise ImportError(f"canonical_saver needs {_missing}; pip install 'canonical-saver[saver]'")

_NAMES = {
    "errors": (
        "LostRankError",
        "ProofError",
        "RequestError",
        "SaveError",
        "VerifyError",
        "WeightsError",
        "WriteError",
    ),
    "planned_files": ("PlannedFile", "plan"),
    "progress": ("Progress",),
    "proving.callback": ("ProveCallback",),
    "proving.proof": ("Proof",),
    "proving.prove": ("prove",),
    "proving.proven": ("proven",),
    "publishing.recovery": ("recover",),
    "save": ("Report", "save_model", "save_trained_model"),
}
"""The public names, by the modules that have them."""

_HOMES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
