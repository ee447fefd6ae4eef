"""The code of models that are no part of transformers, which lies next to the weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers.dynamic_module_utils import custom_object_save

from canonical_saver.publishing.best_effort import BestEffort


def auto_map(config: Any, kinds: Sequence[Any], staged: BestEffort) -> dict[str, Any]:
    """Copy the code of classes that were registered for auto classes.

    Args:
        config: the model's configuration.
        kinds: the classes.
        staged: where to.

    Returns:
        The setting of the configuration that names it; nothing if all was left out.
    """
    code = {key: value for one in kinds for key, value in _write_code(one, staged).items()}
    return {"auto_map": (getattr(config, "auto_map", None) or {}) | code} if code else {}


def _write_code(kind: Any, staged: BestEffort) -> dict[str, Any]:
    """Copy the code of a class that was registered for an auto class.

    Returns:
        Where it is found, as ``auto_map`` has it; nothing if it was left out.
    """
    found: dict[str, Any] = {}

    def usual(folder: Path) -> None:
        # The copied code is that of the class as written, not of FSDP2's class before it.
        if custom_object_save(kind.__new__(kind), folder, config=found) is None:
            raise ValueError("it is defined in __main__, which has no name in another process")

    wrong = staged.attempt(usual, f"{kind.__module__.rpartition('.')[2]}.py")
    if not wrong:
        return dict(found["auto_map"])
    staged.warnings.append(
        f"the code of {kind.__name__} was left out ({wrong}): without it the model does not "
        "load; copy the module that defines it into the folder, and name it under auto_map in "
        "config.json"
    )
    return {}
