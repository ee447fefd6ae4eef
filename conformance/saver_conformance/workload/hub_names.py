"""Names and shapes on disk, for what memory holds otherwise.

A table of the suite's own: the architectures of the workload, written down from their published
checkpoints. A saver is free to find out in any other way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from saver_conformance.cases.case import Architecture
from saver_conformance.observation.observation import Tensor


def to_hub(architecture: Architecture, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a model in memory, as they belong on disk."""
    if architecture != "mixtral":
        return dict(tensors)
    return {hub: value for name, tensor in tensors.items() for hub, value in _mixtral(name, tensor)}


def _mixtral(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Mixtral: fused experts ``[E, 2I, H]`` (gate, then up) and ``[E, H, I]`` are split."""
    hub = name.replace(".mlp.", ".block_sparse_moe.")
    if name.endswith(".experts.gate_up_proj"):
        prefix = hub.removesuffix("gate_up_proj")
        for index, expert in enumerate(_split(tensor)):
            for weight, half in zip(("w1", "w3"), _halves(expert), strict=True):
                yield f"{prefix}{index}.{weight}.weight", half
    elif name.endswith(".experts.down_proj"):
        prefix = hub.removesuffix("down_proj")
        for index, expert in enumerate(_split(tensor)):
            yield f"{prefix}{index}.w2.weight", expert
    else:
        yield hub, tensor


def _split(tensor: Tensor) -> Iterator[Tensor]:
    """The slices along the first dimension."""
    count, *rest = tensor.shape
    size = len(tensor.data) // count
    for index in range(count):
        part = tensor.data[index * size : (index + 1) * size]
        yield Tensor(tensor.dtype, tuple(rest), part)


def _halves(tensor: Tensor) -> tuple[Tensor, Tensor]:
    rows, *rest = tensor.shape
    shape = (rows // 2, *rest)
    middle = len(tensor.data) // 2
    return (
        Tensor(tensor.dtype, shape, tensor.data[:middle]),
        Tensor(tensor.dtype, shape, tensor.data[middle:]),
    )


def adapter_folder(adapter: str) -> str:
    """Where PEFT puts an adapter of this name, relative to the output folder."""
    return "" if adapter == "default" else adapter


def embedding_keys(names: Iterable[str], adapter: str = "default") -> frozenset[str]:
    """Keys of embeddings that an adapter's save may have, although its reload does not need them.

    PEFT adds the embeddings when it adapts them or their size has changed, once for each name that
    they have in memory, and those of modules trained whole under names of their own besides.
    """
    embeddings = [
        name
        for name in names
        if name.endswith(".weight") and {"embed_tokens", "lm_head"}.intersection(name.split("."))
    ]
    return frozenset(
        key
        for name in embeddings
        for key in (adapter_key(name, adapter), name.replace(f".{adapter}.", "."))
    )


def adapter_key(name: str, adapter: str = "default") -> str:
    """Key on disk of a parameter of a ``PeftModel``.

    PEFT leaves the adapter's name out, and the wrapper of modules trained whole; a DoRA magnitude
    also loses its ``weight``.
    """
    parts = name.split(".")
    for index in range(len(parts) - 1, 0, -1):
        if parts[index] != adapter:
            continue
        owner = parts[index - 1]
        if owner == "modules_to_save":
            return ".".join(parts[: index - 1] + parts[index + 1 :])
        if owner == "lora_magnitude_vector":
            return ".".join(parts[:index])
        if owner.startswith("lora_"):
            return ".".join(parts[:index] + parts[index + 1 :])
    return name
