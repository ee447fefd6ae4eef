"""Models whose class has a ``save_pretrained`` of its own.

It is followed instead of guessed: it runs on a copy of the model's modules without data, up to the
place where it hands a state dict to that of transformers. What it passes there is saved. What
it does beside, as writing files, cannot be done for tensors that are spread over ranks, and is
refused.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from canonical_saver.errors import WeightsError, describe
from canonical_saver.weights import state_dict
from canonical_saver.weights.engines import Engines
from canonical_saver.weights.module_tree import named_modules, original_class
from canonical_saver.weights.own_rules import has_own_saving, has_own_state_dict
from canonical_saver.weights.state_dict import StandIn, StateDict
from canonical_saver.weights.tensors import ModelTensor


def find(
    model: nn.Module, tensors: Mapping[str, ModelTensor], engines: Engines
) -> tuple[Any, Mapping[str, ModelTensor], tuple[str, ...]]:
    """Find what a model with rules of its own saves, by its ``save_pretrained`` if it has one.

    Returns:
        The module whose configuration is written, what is saved of the model, and what a person
        should know of it.

    Raises:
        WeightsError: a rule cannot be followed.
    """
    if has_own_saving(model):
        owner, state = _follow(model, tensors, engines)
    else:
        owner, state = model, state_dict.find(model, tensors, engines)
    return owner, state.model_tensors, state.warnings


def _follow(
    model: nn.Module, tensors: Mapping[str, ModelTensor], engines: Engines
) -> tuple[Any, StateDict]:
    """Find what a model's own ``save_pretrained`` saves, without saving.

    Args:
        model: the unwrapped model.
        tensors: its parameters, buffers and quantization states by their names in memory.
        engines: where its tensors lie.

    Returns:
        A copy, without data, of the module whose configuration it writes (the model, or one inside
        it), and what it saves of the model.

    Raises:
        WeightsError: it does something else than to hand a state dict to transformers.
    """
    kind = original_class(model).__name__
    if any(hasattr(module, "peft_config") for _, module in named_modules(model)):
        raise _refused(kind, "it holds an adapter of PEFT, which has files of its own")
    stand_in = StandIn(model, tensors, with_data=False)
    _copy_configurations(stand_in.module)
    with TemporaryDirectory() as folder, _recording(stand_in.module) as calls:
        try:
            stand_in.module.save_pretrained(folder)
        except Exception as error:
            raise _refused(kind, f"it fails without data: {describe(error)}") from error
        written = sorted(path.name for path in Path(folder).iterdir())
    if written:
        raise _refused(kind, f"it writes files of its own: {', '.join(written[:5])}")
    if len(calls) != 1:
        raise _refused(kind, f"it calls save_pretrained of transformers {len(calls)} times")
    owner, request = calls[0]
    if str(request["save_directory"]) != folder or request.get("variant") is not None:
        raise _refused(kind, "it gives the weights another name or another folder")
    state = request.get("state_dict")
    if state is None and owner is stand_in.module:
        if has_own_state_dict(model):
            return owner, state_dict.find(model, tensors, engines)
        return owner, StateDict(tensors)
    return owner, stand_in.places(stand_in.state_dict(owner) if state is None else state, engines)


def _refused(kind: str, why: str) -> WeightsError:
    return WeightsError(
        f"{kind} has a save_pretrained of its own, which cannot be followed: {why}; expected one "
        "that only passes a state dict to that of transformers. Save the model by it, or pass "
        "the transformers or PEFT model inside"
    )


def _copy_configurations(module: nn.Module) -> None:
    """Let the copy have configurations of its own: some classes write into them while saving."""
    memo: dict[int, Any] = {}
    for part in module.modules():
        for name in ("config", "generation_config"):
            if vars(part).get(name) is not None:
                vars(part)[name] = copy.deepcopy(vars(part)[name], memo)


class _Recorder(PreTrainedModel):  # type: ignore[misc]
    """Stands between a class and ``PreTrainedModel`` in the order of resolution."""

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        called = inspect.signature(PreTrainedModel.save_pretrained).bind(self, *args, **kwargs)
        vars(self)["_recorded"].append((self, called.arguments))


@contextmanager
def _recording(module: nn.Module) -> Iterator[list[tuple[Any, dict[str, Any]]]]:
    """Record calls of ``PreTrainedModel.save_pretrained`` on a copy instead of running it."""
    calls: list[tuple[Any, dict[str, Any]]] = []
    parts = [part for part in module.modules() if isinstance(part, PreTrainedModel)]
    kinds = [type(part) for part in parts]
    made = {kind: type(kind.__name__, (kind, _Recorder), {}) for kind in set(kinds)}
    for part, kind in zip(parts, kinds, strict=True):
        part.__class__ = made[kind]
        vars(part)["_recorded"] = calls
    try:
        yield calls
    finally:
        for part, kind in zip(parts, kinds, strict=True):
            part.__class__ = kind
            del vars(part)["_recorded"]
