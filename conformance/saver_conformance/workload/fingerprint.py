"""What a save must leave as it is on a rank, as plain text that can be compared.

Only what the rank holds is read: nothing is gathered, so the look itself changes nothing.
"""

from __future__ import annotations

import enum
import hashlib
import os
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

Fingerprint = dict[str, dict[str, str]]
"""By area, what has which value; a value is a text that changes with the thing."""

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)

Pairs = Iterator[tuple[str, str]]


def look(cfg: Any, trainer: Any, model: nn.Module) -> Fingerprint:
    """The fingerprint of all that a saver is passed, and of the process.

    What cannot be read any more gives an entry of its own instead of an error: a saver that took
    it away changed it.
    """
    root = trainer.model_wrapped
    areas: dict[str, Callable[[], Pairs]] = {
        "weights": lambda: _weights(root),
        "flags": lambda: _flags(root),
        "modules": lambda: _modules(root),
        "random": _random,
        "configuration": lambda: _configuration(cfg, trainer.args),
        "model configuration": lambda: _model_configuration(model),
        "optimizer": lambda: _optimizer(trainer),
        "process": _process,
        "environment": lambda: iter(sorted(os.environ.items())),
    }
    return {area: _read(pairs) for area, pairs in areas.items()}


def _read(pairs: Callable[[], Pairs]) -> dict[str, str]:
    found: dict[str, str] = {}
    try:
        found.update(pairs())
    except Exception as error:
        found["(unreadable)"] = f"{type(error).__name__}: {error}"
    return found


def _weights(root: nn.Module) -> Pairs:
    for name, parameter in root.named_parameters(remove_duplicate=False):
        yield name, _digest(parameter)
        if parameter.grad is not None:
            yield f"{name}.grad", _digest(parameter.grad)
        if (shard := getattr(parameter, "ds_tensor", None)) is not None:  # ZeRO-3
            yield f"{name} (shard)", _digest(shard)
    for name, buffer in root.named_buffers(remove_duplicate=False):
        yield name, _digest(buffer)


def _digest(tensor: torch.Tensor) -> str:
    local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    described = f"{local.dtype} {tuple(local.shape)} on {local.device}"
    if local.device.type == "meta":
        return described
    # A clone, always: a storage that numpy has seen can never be freed by FSDP1 again.
    copy = local.detach().clone(memory_format=torch.contiguous_format).cpu()
    raw = copy.reshape(-1).view(torch.uint8).numpy().tobytes() if copy.numel() else b""
    return f"{described}, bits {_short(raw)}"


def _short(raw: bytes) -> str:
    return hashlib.blake2b(raw, digest_size=8).hexdigest()


def _flags(root: nn.Module) -> Pairs:
    for name, parameter in root.named_parameters(remove_duplicate=False):
        yield f"{name}.requires_grad", str(parameter.requires_grad)
    for name, module in root.named_modules():
        yield f"{name or '(root)'}.training", str(module.training)


def _modules(root: nn.Module) -> Pairs:
    for name, module in root.named_modules(remove_duplicate=False):
        label = name or "(root)"
        yield label, type(module).__name__
        for kind in _HOOKS:
            if hooks := getattr(module, kind, None):
                yield f"{label}.{kind}", " ".join(str(id(hook)) for hook in hooks.values())
        for key, value in vars(module).items():
            if callable(value) and not isinstance(value, type):
                yield f"{label}.{key}", f"{type(value).__name__} {id(value)}"
    for name, parameter in root.named_parameters(remove_duplicate=False):
        yield f"{name} (object)", str(id(parameter))
        for kind in ("_backward_hooks", "_post_accumulate_grad_hooks"):
            if hooks := getattr(parameter, kind, None):
                yield f"{name}.{kind}", " ".join(str(id(hook)) for hook in hooks.values())


def _random() -> Pairs:
    yield "random", _short(repr(random.getstate()).encode())
    yield "numpy.random", _short(repr(np.random.get_state(legacy=False)).encode())
    yield "torch", _short(torch.get_rng_state().numpy().tobytes())
    if torch.cuda.is_available():
        for index, state in enumerate(torch.cuda.get_rng_state_all()):
            yield f"torch.cuda:{index}", _short(state.numpy().tobytes())


def _configuration(cfg: Any, arguments: Any) -> Pairs:
    yield from _flatten("cfg", cfg)
    yield from _flatten("trainer.args", arguments.to_dict())


def _model_configuration(model: Any) -> Pairs:
    for name in ("config", "generation_config"):
        if (config := getattr(model, name, None)) is not None:
            yield from _flatten(f"model.{name}", config)
    if isinstance(adapters := getattr(model, "peft_config", None), Mapping):
        yield from _flatten("model.peft_config", adapters)


def _optimizer(trainer: Any) -> Pairs:
    optimizer = trainer.optimizer
    while hasattr(optimizer, "optimizer"):  # accelerate's wrapper, then DeepSpeed's
        optimizer = optimizer.optimizer
    for number, group in enumerate(optimizer.param_groups):
        for key, value in group.items():
            if key != "params":
                yield from _flatten(f"group {number}.{key}", value)
        for index, parameter in enumerate(group["params"]):
            place = f"group {number}.{index}"
            yield place, _digest(parameter)
            yield from _flatten(place, optimizer.state.get(parameter, {}))
    if trainer.lr_scheduler is not None:
        yield from _flatten("schedule", trainer.lr_scheduler.state_dict())
    yield from _flatten("trainer.state", vars(trainer.state))


def _process() -> Pairs:
    yield "torch.is_grad_enabled()", str(torch.is_grad_enabled())
    yield "torch.is_inference_mode_enabled()", str(torch.is_inference_mode_enabled())
    yield "torch.get_default_dtype()", str(torch.get_default_dtype())
    yield "torch.get_default_device()", str(torch.get_default_device())
    yield "torch.get_num_threads()", str(torch.get_num_threads())
    yield (
        "torch.are_deterministic_algorithms_enabled()",
        str(torch.are_deterministic_algorithms_enabled()),
    )
    yield "torch.get_float32_matmul_precision()", torch.get_float32_matmul_precision()
    yield "working directory", str(Path.cwd())
    umask = os.umask(0o077)
    os.umask(umask)
    yield "umask", f"{umask:04o}"


def _flatten(place: str, value: Any) -> Pairs:
    """Every leaf of ``value`` with the path that leads to it; object addresses are no content."""
    if hasattr(value, "to_dict") and not isinstance(value, Mapping):
        value = value.to_dict()
    if isinstance(value, Mapping):
        yield place, f"{type(value).__name__} of {len(value)}"
        for key in sorted(value, key=str):
            yield from _flatten(f"{place}.{key}", value[key])
    elif isinstance(value, (set, frozenset)):
        yield place, repr(sorted(map(str, value)))
    elif isinstance(value, (list, tuple)):
        yield place, f"{type(value).__name__} of {len(value)}"
        for index, item in enumerate(value):
            yield from _flatten(f"{place}[{index}]", item)
    elif isinstance(value, torch.Tensor):
        yield place, _digest(value)
    elif isinstance(value, torch.dtype):
        # transformers writes the name into the configuration object when it saves.
        yield place, repr(str(value).removeprefix("torch."))
    elif value is None or isinstance(value, (bool, int, float, str, bytes, enum.Enum, Path)):
        yield place, repr(value)
    else:
        yield place, type(value).__name__
