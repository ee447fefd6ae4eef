"""What the weights are, seen without the saver: gathered per engine by the engine's own public API.

Names are taken from the model before an engine wraps it, and matched by order afterwards, so that
no rule about wrapper prefixes is shared with any saver.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from saver_conformance.cases.engines import engines
from saver_conformance.cases.family import Family
from saver_conformance.observation.observation import Tensor

SPECIAL_BITS: Mapping[torch.dtype, tuple[torch.dtype, tuple[int, ...]]] = {
    torch.float32: (
        torch.int32,
        (0x7FC12345, 0x7F812345, -0x3ABCDF, -0x80000000, 1, -0x7FFFFFFD, 0x7F800000, -0x800000),
    ),
    torch.bfloat16: (
        torch.int16,
        (0x7FC5, 0x7F81, -0x3D, -0x8000, 1, -0x7FFD, 0x7F80, -0x80),
    ),
}
"""Per type: the integer view, and the bits of a quiet, a signalling and a negative NaN with
payload, of -0.0, of the smallest subnormal and a negative one, and of both infinities."""

DTYPE_NAMES: Mapping[torch.dtype, str] = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.float32: "F32",
    torch.int64: "I64",
    torch.float64: "F64",
}
"""safetensors' name of a type."""

TORCH_DTYPES: Mapping[str, torch.dtype] = {name: dtype for dtype, name in DTYPE_NAMES.items()}
"""Types by safetensors' name."""


@dataclass(frozen=True, slots=True)
class Names:
    """Names of a model's own tensors before an engine wraps it, in module order.

    Attributes:
        parameters: each parameter once, under its first name.
        trainable: those that training changes.
        buffers: the persistent buffers.
        tied: further names of a parameter, with its first name.
        extras: the extra state of modules that have one.
        embeddings: the weights of the input and output embeddings that the base model brought.
    """

    parameters: tuple[str, ...]
    trainable: frozenset[str]
    buffers: tuple[str, ...]
    tied: Mapping[str, str]
    extras: tuple[str, ...]
    embeddings: frozenset[str]

    @property
    def of_whole_model(self) -> frozenset[str]:
        """All that a save of the whole model holds, each once."""
        return frozenset((*self.parameters, *self.buffers, *self.extras))


def read_names(model: nn.Module, family: Family | None) -> Names:
    """The names of ``model``, which no engine has wrapped yet.

    Without a family nobody knows what its embeddings are called, and none are named.
    """
    modules = (family.embedding, family.head) if family else ()
    embeddings = tuple(f"{module}.weight" for module in modules)
    first: dict[nn.Parameter, str] = {}
    tied: dict[str, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if parameter in first:
            tied[name] = first[parameter]
        else:
            first[parameter] = name
    state = model.state_dict(keep_vars=True)
    return Names(
        parameters=tuple(first.values()),
        trainable=frozenset(name for p, name in first.items() if p.requires_grad),
        buffers=tuple(name for name, _ in model.named_buffers() if name in state),
        tied=tied,
        extras=tuple(name for name in state if name.endswith("_extra_state")),
        embeddings=frozenset(
            name
            for name in first.values()
            if name.replace(".token_adapter.", ".")
            .replace(".base_layer.", ".")
            .endswith(embeddings)
        ),
    )


def whole(
    engine: str, root: nn.Module, *, modify: bool = False
) -> AbstractContextManager[list[nn.Parameter]]:
    """Every parameter of ``root`` in module order; whole inside the context where that needs one.

    DTensors stay sharded; :func:`bits` makes them whole one by one. With ``modify`` the changes
    made inside reach the shards.
    """
    return engines()[engine].whole(root, modify)


def plant(engine: str, root: nn.Module) -> None:
    """Write special bit patterns into every trainable floating-point parameter.

    The start, the middle and the end of each parameter (of each shard, of a DTensor) get them, in
    different rotations, so that a shard that takes another's place is seen.
    """
    with torch.no_grad(), whole(engine, root, modify=True) as parameters:
        for parameter in parameters:
            local = parameter.to_local() if hasattr(parameter, "to_local") else parameter.data
            if parameter.requires_grad and local.dtype in SPECIAL_BITS and local.numel():
                _plant(local, _shard_index(parameter))


def _shard_index(parameter: Any) -> int:
    if not hasattr(parameter, "to_local"):
        return 0
    placed = zip(parameter.device_mesh.get_coordinate(), parameter.placements, strict=True)
    return sum(index for index, placement in placed if not placement.is_replicate())


def _plant(local: torch.Tensor, shift: int) -> None:
    view, patterns = SPECIAL_BITS[local.dtype]
    flat = local.view(-1).view(view)
    values = torch.tensor(patterns, dtype=view).roll(shift)
    count = min(len(values), max(1, flat.numel() // 4))
    for start in (0, (flat.numel() - count) // 2, flat.numel() - count):
        flat[start : start + count] = values.roll(start)[:count]


def bits(value: torch.Tensor) -> Tensor:
    """The bits of ``value``; collective when it is a DTensor."""
    whole_value = value.full_tensor() if hasattr(value, "full_tensor") else value
    # A clone, always: a storage that numpy has seen can never be freed by FSDP1 again.
    copy = whole_value.detach().clone(memory_format=torch.contiguous_format).cpu()
    data = copy.reshape(-1).view(torch.uint8).numpy().tobytes()
    return Tensor(DTYPE_NAMES[copy.dtype], tuple(copy.shape), data)


def to_torch(tensor: Tensor) -> torch.Tensor:
    """What has the bits of ``tensor``; the reverse of :func:`bits`."""
    dtype = TORCH_DTYPES[tensor.dtype]
    if not tensor.data:
        return torch.empty(tensor.shape, dtype=dtype)
    return torch.frombuffer(bytearray(tensor.data), dtype=dtype).reshape(tensor.shape)


def snapshot(
    engine: str, root: nn.Module, names: Names, wanted: frozenset[str]
) -> dict[str, Tensor]:
    """The bits of the ``wanted`` parameters, persistent buffers and extra state; collective.

    Raises:
        RuntimeError: the wrapped model has other parameters than the model had.
    """
    found: dict[str, Tensor] = {}
    with torch.no_grad(), whole(engine, root) as parameters:
        if len(parameters) != len(names.parameters):
            raise RuntimeError(
                f"the model had {len(names.parameters)} parameters before it was wrapped, "
                f"{len(parameters)} after"
            )
        for name, parameter in zip(names.parameters, parameters, strict=True):
            if name in wanted:
                found[name] = bits(parameter)
    buffers = [value for _, value in root.named_buffers()]
    persistent = _persistent(root)
    kept = [value for value in buffers if id(value) in persistent]
    for name, value in zip(names.buffers, kept, strict=True):
        if name in wanted:
            found[name] = bits(value)
    for name, module in zip(names.extras, _with_extra_state(root), strict=True):
        if name in wanted:
            found[name] = bits(module.get_extra_state())
    return found


def _with_extra_state(root: nn.Module) -> list[nn.Module]:
    own = nn.Module.get_extra_state
    return [module for module in root.modules() if type(module).get_extra_state is not own]


def _persistent(root: nn.Module) -> set[int]:
    return {
        id(value)
        for module in root.modules()
        for name, value in module._buffers.items()
        if value is not None and name not in module._non_persistent_buffers_set
    }
