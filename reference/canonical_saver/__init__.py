"""The canonical way to save a fine-tuned model.

>>> from canonical_saver import save_trained_model
>>> report = save_trained_model({"output_dir": folder}, trainer, model)

Nothing is imported before it is used: the command line answers at once, and PEFT is imported for a
model that has adapters.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from canonical_saver.errors import (
        LostRankError,
        ProofError,
        RequestError,
        SaveError,
        VerifyError,
        WeightsError,
        WriteError,
    )
    from canonical_saver.planned_files import PlannedFile, plan
    from canonical_saver.progress import Progress
    from canonical_saver.proving.callback import ProveCallback
    from canonical_saver.proving.proof import Proof
    from canonical_saver.proving.prove import prove
    from canonical_saver.proving.proven import proven
    from canonical_saver.publishing.recovery import recover
    from canonical_saver.save import Report, save_model, save_trained_model

if _missing := " and ".join(n for n in ("torch", "transformers") if find_spec(n) is None):
    raise ImportError(f"canonical_saver needs {_missing}; pip install 'canonical-saver[saver]'")

__all__ = [
    "LostRankError",
    "PlannedFile",
    "Progress",
    "Proof",
    "ProofError",
    "ProveCallback",
    "Report",
    "RequestError",
    "SaveError",
    "VerifyError",
    "WeightsError",
    "WriteError",
    "plan",
    "prove",
    "proven",
    "recover",
    "save_model",
    "save_trained_model",
]

_HOMES = {
    **dict.fromkeys((name for name in __all__ if name.endswith("Error")), "errors"),
    "Progress": "progress",
    "PlannedFile": "planned_files",
    "plan": "planned_files",
    "Proof": "proving.proof",
    "ProveCallback": "proving.callback",
    "prove": "proving.prove",
    "proven": "proving.proven",
    "recover": "publishing.recovery",
}
"""The module of each public name that is not one of ``save``."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'save')}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
