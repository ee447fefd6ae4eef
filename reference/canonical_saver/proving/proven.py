"""A decorator that proves what a saver has saved."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from torch import nn

from canonical_saver.collectives import Ranks
from canonical_saver.errors import ProofError
from canonical_saver.from_trainer import lookup
from canonical_saver.proving.prove import prove

P = ParamSpec("P")
R = TypeVar("R")

_FOLDERS = ("output_dir", "save_directory", "folder", "path")


def proven(saver: Callable[P, R]) -> Callable[P, R]:
    """Prove each folder that a saver writes, before it returns.

    The saver is called on every rank, with a model among its arguments, and the folder as an
    argument ``output_dir``, ``save_directory``, ``folder`` or ``path``, or as ``output_dir`` of an
    argument ``cfg``. An argument ``trainer`` brings the wrapped model.

    Args:
        saver: any function that saves a model.

    Returns:
        The same function, which raises :class:`canonical_saver.ProofError` on every rank if the
        folder is not the model afterwards.

    Examples:
        >>> @proven
        ... def save(model, output_dir):
        ...     model.save_pretrained(output_dir)
        >>> save(model, folder)
    """
    signature = inspect.signature(saver)

    @wraps(saver)
    def save(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        model, folder = _model(bound.arguments), _folder(bound.arguments)
        ranks = Ranks.current()
        if ranks.world_size == 1:
            result = saver(*args, **kwargs)
        else:  # it may return on one rank, or fail there, while another one still writes
            result, _ = ranks.step("save", lambda: saver(*args, **kwargs))
        prove(model, folder, trainer=bound.arguments.get("trainer"), strict=True)
        return result

    return save


def _model(arguments: dict[str, Any]) -> nn.Module:
    named = arguments.get("model")
    found = [named] if named is not None else []
    found += [one for one in arguments.values() if isinstance(one, nn.Module)]
    if not found:
        trained = getattr(arguments.get("trainer"), "model", None)
        found = [trained] if trained is not None else []
    if not found:
        raise ProofError(
            "expected a model among the saver's arguments, to prove the folder by, found none; "
            "call canonical_saver.prove after it"
        )
    return found[0]  # type: ignore[no-any-return]


def _folder(arguments: dict[str, Any]) -> str | Path:
    found = [arguments.get(name) for name in _FOLDERS]
    found.append(lookup(arguments.get("cfg"), "output_dir"))
    found.append(lookup(getattr(arguments.get("trainer"), "args", None), "output_dir"))
    folder = next((one for one in found if isinstance(one, str | Path) and str(one)), None)
    if folder is None:
        raise ProofError(
            f"expected the folder as an argument {', '.join(_FOLDERS)} or as cfg.output_dir, found "
            "none; call canonical_saver.prove after the save"
        )
    return folder
