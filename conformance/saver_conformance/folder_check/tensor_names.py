"""Parts of tensor names that training left behind."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from saver_conformance.checks.wrapper_names import WRAPPER_PARTS

# Of PEFT's layers around those of a model; no class of transformers has modules of these names.
PEFT_PARTS = frozenset(
    {
        "base_layer",
        "lora_A",
        "lora_B",
        "lora_embedding_A",
        "lora_embedding_B",
        "lora_magnitude_vector",
        "modules_to_save",
        "original_module",
    }
)
PEFT_PREFIX = "base_model.model."

_FLAT_PARAMETERS = ("_flat_param", "flat_param")
# Models have modules that are called so, too.
_AMBIGUOUS = "module"
_MAX_NAME = 1000


def wrapped(names: Collection[str], *, known_model: bool) -> Iterator[tuple[str, str]]:
    """Names that carry a wrapper's part, each with that part.

    A model's own layer may be called like a wrapper. What holds further modules, or everything, is
    a wrapper all the same.

    Args:
        names: the names of all tensors.
        known_model: whether they are those of a class of transformers, which has no such layers.
    """
    around_all = {
        part for part in WRAPPER_PARTS if all(name.startswith(f"{part}.") for name in names)
    }
    for name in names:
        parts = _parts(name)
        for at, part in enumerate(parts[:-1]):
            if part == _AMBIGUOUS:
                is_wrapper = at == 0 and known_model and part in around_all
            else:
                is_all = at == 0 and part in around_all and len(names) > 1
                is_wrapper = part in WRAPPER_PARTS and (
                    known_model or is_all or _holds_modules(parts, at)
                )
            if is_wrapper:
                yield name, part
                break


def of_peft(names: Collection[str]) -> Iterator[tuple[str, str]]:
    """Names of a whole model that carry a part of PEFT's, each with that part."""
    for name in names:
        if name.startswith(PEFT_PREFIX):
            yield name, PEFT_PREFIX
        elif found := PEFT_PARTS.intersection(_parts(name)):
            yield name, min(found)


def flat_parameters(names: Collection[str]) -> Iterator[str]:
    """Names of FSDP's flat parameters, each of which is many tensors in one."""
    return (name for name in names if name.rpartition(".")[2].startswith(_FLAT_PARAMETERS))


def _holds_modules(parts: Sequence[str], at: int) -> bool:
    """Whether modules stand below the one at ``at``, not just its own tensors."""
    return len(parts) - at > 2 and parts[at + 1] not in PEFT_PARTS


def _parts(name: str) -> list[str]:
    """The parts of a name; none of one that is longer than any model's, to spend no time on it."""
    return name.split(".") if len(name) <= _MAX_NAME else []
