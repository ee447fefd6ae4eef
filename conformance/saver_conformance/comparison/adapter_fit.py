"""Whether an adapter belongs to a base: its names, its shapes, and whether it does anything."""

from __future__ import annotations

from collections.abc import Iterator

from saver_conformance.comparison.merge_plan import lora_modules, plan_merge
from saver_conformance.comparison.names import BaseNames, in_words, layer_of
from saver_conformance.comparison.notes import Note
from saver_conformance.comparison.slices import find_repeated_slice
from saver_conformance.comparison.stored import (
    StoredPart,
    StoredTensor,
    TensorBytes,
    UnreadableTensorError,
)
from saver_conformance.folder_check import lora
from saver_conformance.safe_text import count

_SECOND = ("lora_B.weight", "lora_B", "lora_embedding_B")
_FIRST = ("lora_A.weight", "lora_A", "lora_embedding_A")


def check_adapter(adapter: StoredPart, base: StoredPart) -> Iterator[Note]:
    """What is wrong about ``adapter`` as one of ``base``, and what is worth knowing."""
    modules = lora_modules(adapter)
    kind = adapter.folder.adapter_config.get("peft_type")
    try:
        yield from _check_values(adapter, modules)
    except UnreadableTensorError as error:
        yield Note(True, f"cannot be read: {error}")
    if not lora.is_lora(adapter.folder.adapter_config):
        yield Note(False, f"names and shapes of the adapter are not judged: its kind is {kind!r}")
        return
    yield from _check_names(modules, base)
    yield from _check_shapes(adapter, base)


def _check_values(
    adapter: StoredPart, modules: dict[str, dict[str, StoredTensor]]
) -> Iterator[Note]:
    for keys, what in ((_SECOND, "lora_B"), (_FIRST, "lora_A")):
        found = [tensors[key] for tensors in modules.values() for key in keys if key in tensors]
        zero = tuple(tensor.name for tensor in found if _is_zero(tensor))
        if zero and len(zero) == len(found):
            yield Note(True, f"every {what} is zero, the adapter changes nothing", zero)
        elif zero:
            text = f"{count(len(zero), what)} of {len(found)} zero: {in_words(zero)}"
            yield Note(False, text, zero)
    for tensor in (tensor for tensors in modules.values() for tensor in tensors.values()):
        if (lost := find_repeated_slice(tensor)) is not None:
            yield Note(True, f"{tensor.name}: {lost}", (tensor.name,))


def _check_names(modules: dict[str, dict[str, StoredTensor]], base: StoredPart) -> Iterator[Note]:
    names = BaseNames(base.tensors)
    layers = [layer for name in base.tensors if (layer := layer_of(name)) is not None]
    unknown = [path for path in modules if not _is_known(path, names)]
    if not unknown:
        return
    if len(unknown) == len(modules):
        text = f"none of its {count(len(modules), 'module')} is in the base: {in_words(unknown)}"
        yield Note(True, text, tuple(unknown))
        return
    beyond = tuple(
        path
        for path in unknown
        if (layer := layer_of(f"{path}.")) and layer > max(layers, default=0)
    )
    if beyond:
        text = f"{count(len(beyond), 'module')} in layers that the base does not have"
        yield Note(True, f"{text}: {in_words(beyond)}", beyond)
    rest = tuple(path for path in unknown if path not in set(beyond))
    if rest:
        text = f"{count(len(rest), 'module')} under names that the base's files do not have"
        yield Note(False, f"{text}: {in_words(rest)}", rest)


def _is_known(path: str, names: BaseNames) -> bool:
    while path.endswith(".base_layer"):
        path = path.removesuffix(".base_layer")
    return names.find(f"{path}.weight") is not None or bool(names.below(path))


def _check_shapes(adapter: StoredPart, base: StoredPart) -> Iterator[Note]:
    names = BaseNames(base.tensors)
    wrong: list[str] = []
    for path, tensors in lora_modules(adapter).items():
        found = names.find(f"{path}.weight")
        first = next((tensors[key] for key in _FIRST if key in tensors), None)
        second = next((tensors[key] for key in _SECOND if key in tensors), None)
        if found is None or first is None or second is None:
            continue
        shape = base.tensors[found].shape
        if len(shape) == len(first.shape) == len(second.shape) == 2:
            product = (second.shape[0], first.shape[1])
            if first.shape[0] != second.shape[1] or product not in (shape, shape[::-1]):
                wrong.append(f"{path} is {list(product)}, the base's is {list(shape)}")
    if wrong:
        more = ", ..." if len(wrong) > 3 else ""
        text = f"{count(len(wrong), 'module')} of another shape than the base's"
        yield Note(True, f"{text}: {'; '.join(wrong[:3])}{more}", tuple(wrong))
    plan = plan_merge(adapter, base)
    if isinstance(plan, str):
        return
    resized = [
        name for name, tensor in plan.replaced.items() if tensor.shape != base.tensors[name].shape
    ]
    if resized:
        yield Note(
            False,
            f"{count(len(resized), 'tensor')} that the adapter holds whole, of another shape than "
            f"the base's: {in_words(resized)}",
            tuple(resized),
        )


def _is_zero(tensor: StoredTensor) -> bool:
    with TensorBytes(tensor) as data:
        return not any(any(block) for block in data.blocks())
