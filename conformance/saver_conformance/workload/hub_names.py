"""Names and shapes on disk, for what memory holds otherwise.

Rules of the suite's own: each family states how its published checkpoints name what memory holds. A
saver is free to find out in any other way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase

from saver_conformance.cases.adapter_kind import AdapterKind
from saver_conformance.cases.adapter_kinds.lora import LORA
from saver_conformance.cases.family import Family, Rename, SplitExperts
from saver_conformance.observation.observation import Tensor


def to_hub(family: Family, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a model in memory, as they belong on disk."""
    return {
        _renamed(family, name): value
        for memory, tensor in tensors.items()
        for name, value in _apart(family, memory, tensor)
    }


def _renamed(family: Family, name: str) -> str:
    for conversion in family.conversions:
        if isinstance(conversion, Rename):
            name = re.sub(conversion.memory, conversion.disk, name)
    return name


def _apart(family: Family, name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The experts one by one, if ``tensor`` holds several."""
    for conversion in family.conversions:
        if isinstance(conversion, SplitExperts) and name.endswith(conversion.memory):
            place = name.removesuffix(conversion.memory.rpartition(".")[2])
            for index, expert in enumerate(_split(tensor)):
                parts = _rows(expert, len(conversion.disk))
                for end, part in zip(conversion.disk, parts, strict=True):
                    yield f"{place}{index}.{end}", part
            return
    yield name, tensor


def _split(tensor: Tensor) -> Iterator[Tensor]:
    """The slices along the first dimension."""
    count, *rest = tensor.shape
    size = len(tensor.data) // count
    for index in range(count):
        part = tensor.data[index * size : (index + 1) * size]
        yield Tensor(tensor.dtype, tuple(rest), part)


def _rows(tensor: Tensor, count: int) -> Iterator[Tensor]:
    """The rows in ``count`` equal parts."""
    rows, *rest = tensor.shape
    size = len(tensor.data) // count
    for index in range(count):
        part = tensor.data[index * size : (index + 1) * size]
        yield Tensor(tensor.dtype, (rows // count, *rest), part)


def adapter_folder(adapter: str) -> str:
    """Where PEFT puts an adapter of this name, relative to the output folder."""
    return "" if adapter == "default" else adapter


def embedding_keys(
    family: Family, names: Iterable[str], adapter: str = "default", kind: AdapterKind = LORA
) -> frozenset[str]:
    """Keys of embeddings that an adapter's save may have, although its reload does not need them.

    PEFT adds the embeddings when it adapts them or their size has changed, once for each name that
    they have in memory, and those of modules trained whole under names of their own besides.
    """
    embeddings = [
        name
        for name in names
        if name.endswith(".weight")
        and {family.embedding, family.head}.intersection(name.split("."))
    ]
    return frozenset(
        key
        for name in embeddings
        for key in (adapter_key(name, adapter, kind), name.replace(f".{adapter}.", "."))
    )


def adapter_key(name: str, adapter: str = "default", kind: AdapterKind = LORA) -> str:
    """Key on disk of a parameter of a ``PeftModel``.

    PEFT leaves the adapter's name out, and the wrapper of modules trained whole; a DoRA magnitude
    also loses its ``weight``. What is no tensor of the adapter keeps its name.
    """
    key = _peft_key(name, adapter, kind)
    return name if key == name else kind.prefix + key


def _peft_key(name: str, adapter: str, kind: AdapterKind) -> str:
    """The key without what stands before it on disk alone."""
    for memory, disk in kind.keys.items():
        if fnmatchcase(name, memory.format(adapter)):
            return disk
    parts = name.split(".")
    for index in range(len(parts) - 1, 0, -1):
        if parts[index] != adapter:
            continue
        owner = parts[index - 1]
        if owner == "modules_to_save":
            return ".".join(parts[: index - 1] + parts[index + 1 :])
        if owner == "lora_magnitude_vector":
            return ".".join(parts[:index])
        if owner.startswith(kind.marks):
            return ".".join(parts[:index] + parts[index + 1 :])
    return name
