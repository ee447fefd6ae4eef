"""What the tensors of a LoRA adapter and its configuration tell about each other.

PEFT writes ``base_model.model.PATH.lora_A.weight`` (``[rank, in]``) and ``PATH.lora_B.weight``
(``[out, rank]``), for embeddings ``PATH.lora_embedding_A`` and ``B``, and with DoRA
``PATH.lora_magnitude_vector``. AdaLoRA has ``PATH.lora_A``, ``B`` and ``E``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from saver_conformance.folder.safetensors import Span
from saver_conformance.folder_check.folder import Folder
from saver_conformance.folder_check.tensor_names import PEFT_PREFIX

_PARTNERS = {
    "lora_A": "lora_B",
    "lora_B": "lora_A",
    "lora_embedding_A": "lora_embedding_B",
    "lora_embedding_B": "lora_embedding_A",
}
DEFAULT_RANK = 8
MAGNITUDE = "lora_magnitude_vector"
BIAS = "lora_B.bias"
_PART = re.compile(rf"(?:^|\.)(lora_[ABE]|lora_embedding_[AB]|{MAGNITUDE})(?=\.|$)")
# What may follow a part of LoRA's in a name; an adapter's name never does.
_ENDS = {
    "lora_A": ("weight", "bias"),
    "lora_B": ("weight", "bias"),
    "lora_embedding_A": ("",),
    "lora_embedding_B": ("",),
    MAGNITUDE: ("", "weight"),
}
# No model's names are as long; each takes time that grows with the square of its parts.
_MAX_NAME = 1000
_MAX_DOTS = 40
_PLAIN_PATTERN = re.compile(r"\^?[\w.-]+")
# Settings under which the tensors have other names or shapes.
_VARIANTS = ("use_bdlora", "monteclora_config")


@dataclass(frozen=True, slots=True)
class Module:
    """The LoRA tensors of one module.

    Attributes:
        path: the module's path in the base model.
        names: the tensors' names, by the part of LoRA's and what follows it: ``lora_A.weight``.
        spans: the tensors, by the same.
    """

    path: str
    names: dict[str, str] = field(default_factory=dict)
    spans: dict[str, Span] = field(default_factory=dict)

    @property
    def parts(self) -> frozenset[str]:
        """The parts of LoRA's that are there, whatever follows them."""
        return frozenset(key.partition(".")[0] for key in self.names)

    def span(self, part: str) -> Span | None:
        """The tensor of ``part``, which is a weight or has no module of its own."""
        return self.spans.get(f"{part}.weight", self.spans.get(part))

    @property
    def a(self) -> Span | None:
        """What is multiplied first, ``[rank, in, ...]``."""
        return self.span("lora_A") or self.span("lora_embedding_A")

    @property
    def b(self) -> Span | None:
        """What is multiplied next, ``[out, rank, ...]``."""
        return self.span("lora_B") or self.span("lora_embedding_B")


def is_lora(config: Mapping[str, Any]) -> bool:
    """Whether the adapter is a plain LoRA, whose names and shapes are known."""
    return config.get("peft_type") == "LORA" and not any(config.get(key) for key in _VARIANTS)


def is_adalora(config: Mapping[str, Any]) -> bool:
    """Whether the adapter is AdaLoRA's, of which training changes the ranks."""
    return config.get("peft_type") == "ADALORA"


def modules(folder: Folder) -> dict[str, Module]:
    """The modules that LoRA tensors belong to, by their paths."""
    found: dict[str, Module] = {}
    for name, file in folder.file_of.items():
        if (where := place_of(name)) is None:
            continue
        path, key = where
        module = found.setdefault(path, Module(path))
        module.names[key] = name
        module.spans[key] = folder.headers[file].tensors[name]
    return found


def lone(module: Module) -> Iterator[tuple[str, str]]:
    """Tensors of ``module`` without their partner, each with the partner's name."""
    for part in module.parts:
        partner = _PARTNERS.get(part)
        if partner and partner not in module.parts:
            name = next(name for key, name in module.names.items() if key.partition(".")[0] == part)
            yield name, f"{PEFT_PREFIX}{module.path}.{partner}"


def misnamed(folder: Folder) -> Iterator[tuple[str, str]]:
    """LoRA tensors under names that PEFT does not look for, each with what it looks for."""
    config = folder.adapter_config
    if not (is_lora(config) or is_adalora(config)):
        return
    for path, module in modules(folder).items():
        for key, name in module.names.items():
            part, _, end = key.partition(".")
            ends = ("",) if is_adalora(config) else _ENDS.get(part, ("",))
            right = f"{part}.{ends[0]}".rstrip(".")
            if end not in ends or not name.startswith(PEFT_PREFIX):
                yield name, f"{PEFT_PREFIX}{path}.{right}"


@dataclass(frozen=True, slots=True)
class Ranks:
    """The ranks that a configuration gives to modules.

    Patterns are regular expressions, of which only plain paths are understood: those of a stranger
    can keep the processor for hours.

    Attributes:
        default: of the modules that no pattern names; None where ranks are uncertain.
        patterns: by paths or their ends.
        order: the places of the patterns; the first that fits a module counts.
    """

    default: int | None
    patterns: Mapping[str, Any]
    order: Mapping[str, int]

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Ranks:
        """The ranks that ``config`` gives."""
        patterns = config.get("rank_pattern") or {}
        is_plain = isinstance(patterns, dict) and all(map(_PLAIN_PATTERN.fullmatch, patterns))
        if not is_plain or config.get("target_parameters"):
            return cls(None, {}, {})
        order = {key: number for number, key in enumerate(patterns)}
        return cls(_rank(config.get("r", DEFAULT_RANK)), patterns, order)

    def rank(self, path: str) -> int | None:
        """The rank of the module at ``path``; None where it is uncertain."""
        if self.default is None or ".base_layer" in path:
            return None
        matching = [key for key in (f"^{path}", *suffixes(path)) if key in self.order]
        if not matching:
            return self.default
        return _rank(self.patterns[min(matching, key=self.order.__getitem__)])


def is_rank(value: Any) -> bool:
    """Whether PEFT takes ``value`` for a rank."""
    return type(value) is int and value > 0


def suffixes(path: str) -> Iterator[str]:
    """``path`` without its first parts: all names that PEFT takes for the module at ``path``."""
    parts = path.split(".")
    return (".".join(parts[at:]) for at in range(len(parts)))


def place_of(name: str) -> tuple[str, str] | None:
    """The path of the module, and the rest of the name; None for what is no LoRA tensor."""
    if len(name) > _MAX_NAME or name.count(".") > _MAX_DOTS:
        return None
    matches = list(_PART.finditer(name))
    if not matches:
        return None
    at = matches[-1]
    return name[: at.start()].removeprefix(PEFT_PREFIX), name[at.start(1) :]


def _rank(value: Any) -> int | None:
    return value if is_rank(value) else None
