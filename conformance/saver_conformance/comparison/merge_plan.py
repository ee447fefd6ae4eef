"""What a merge of a LoRA adapter changes in its base, read from the adapter's files.

A target is looked at as a matrix of rows: its first dimension, or the first two of a tensor that
stacks experts. Each block of rows gets ``scale * left @ right``, where ``left`` and ``right`` are
``lora_B [out, rank]`` and ``lora_A [rank, in]``, or these transposed where the base keeps its
weights the other way round.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from saver_conformance.comparison.names import BaseNames
from saver_conformance.comparison.stored import StoredPart, StoredTensor
from saver_conformance.folder_check import lora
from saver_conformance.folder_check.tensor_names import PEFT_PREFIX
from saver_conformance.safe_text import quoted

_PLAIN_PATTERN = re.compile(r"\^?[\w.-]+")
_DEFAULT_ALPHA = 8
_MAX_ALPHA = 1e9
_MAX_FACTOR_BYTES = 256 << 20
_TOKENS = ".token_adapter.trainable_tokens_delta"
_BASE_LAYER = ".base_layer."
_EXPERT = re.compile(r"(\d{1,5})\.(\w+)\.weight")
# Names of a gated layer's parts: what is multiplied first, what gates it, what is multiplied last.
_GATES, _UPS, _DOWNS = ("gate_proj", "w1"), ("up_proj", "w3"), ("down_proj", "w2")
# Settings that make a merge something else than base + scale * B @ A.
_OTHER_MERGES = (
    "use_dora",
    "use_bdlora",
    "monteclora_config",
    "alora_invocation_tokens",
    "layer_replication",
    "arrow_config",
    "kasa_config",
    "velora_config",
)


@dataclass(frozen=True, slots=True)
class Block:
    """Rows of a target that get a product of two factors.

    Attributes:
        a: ``lora_A``, ``[rank * experts, in]``.
        b: ``lora_B``, ``[out, rank * experts]``.
        scale: what the product is multiplied by.
        first: the first of the target's rows.
        rows: how many.
        is_transposed: whether the rows are the inputs.
        offset: the row of the product that belongs to the first of the target's.
        expert: which of the experts that share the factors, and how many there are.
    """

    a: StoredTensor
    b: StoredTensor
    scale: float
    first: int
    rows: int
    is_transposed: bool = False
    offset: int = 0
    expert: tuple[int, int] = (0, 1)

    @property
    def rank(self) -> int:
        """The rank of the product."""
        return self.a.shape[0] // self.expert[1]


@dataclass(frozen=True)
class MergePlan:
    """What a merge changes.

    Attributes:
        targets: blocks by the base's name of the tensor.
        replaced: tensors that the adapter holds whole, by the base's name.
        touched: names that may change in a way that is not judged.
        unjudged: parts of the adapter that are not judged, with the reason, in words.
    """

    targets: Mapping[str, tuple[Block, ...]] = field(default_factory=dict)
    replaced: Mapping[str, StoredTensor] = field(default_factory=dict)
    touched: frozenset[str] = frozenset()
    unjudged: tuple[str, ...] = ()


class _Planner:
    """Collects the plan."""

    def __init__(self, config: Mapping[str, Any], base: StoredPart) -> None:
        self.config = config
        self.base = base
        self.names = BaseNames(base.tensors)
        self.targets: dict[str, tuple[Block, ...]] = {}
        self.touched: set[str] = set()
        self.unjudged: list[str] = []

    def add(self, path: str, tensors: Mapping[str, StoredTensor]) -> None:
        """Plan the module at ``path`` with its LoRA tensors, by part and what follows it."""
        self.touched |= self._named(f"{path}.bias") if f"{lora.BIAS}" in tensors else set()
        a, b = _pair(tensors)
        if a is None or b is None:
            self.unjudged.append(f"{path} lacks lora_A or lora_B")
            return
        blocks: dict[str, tuple[Block, ...]] | None
        if max(a.nbytes, b.nbytes) > _MAX_FACTOR_BYTES or 0 in (*a.shape, *b.shape):
            blocks = None
        elif (name := self.names.find(f"{path}.weight")) is not None:
            is_embedding = any(key.startswith("lora_embedding") for key in tensors)
            blocks = self._plain(path, name, a, b, is_embedding=is_embedding)
        else:
            blocks = self._experts(path, a, b)
        if blocks is None:
            self.unjudged.append(f"{path} has no tensor in the base that its factors fit")
            self.touched |= set(self.names.below(path).values())
            return
        self.targets |= blocks

    def scale(self, path: str, rank: int) -> float | None:
        """What the product of the module at ``path`` is multiplied by; None where uncertain."""
        alpha = _setting(self.config, path)
        if alpha is None or rank < 1:
            return None
        return alpha / (math.sqrt(rank) if self.config.get("use_rslora") else rank)

    def _have(self, names: Collection[str], shape: tuple[int, ...]) -> bool:
        return all(self.base.tensors[name].shape == shape for name in names)

    def _named(self, name: str) -> set[str]:
        found = self.names.find(name)
        return {found} if found else set()

    def _plain(
        self, path: str, name: str, a: StoredTensor, b: StoredTensor, *, is_embedding: bool
    ) -> dict[str, tuple[Block, ...]] | None:
        shape = self.base.tensors[name].shape
        rank = a.shape[0]
        scale = self.scale(path, rank)
        if scale is None or len(shape) < 2:
            return None
        # A convolution's second factor has a kernel of one, [out, rank, 1, 1].
        ins, outs = math.prod(a.shape[1:]), b.shape[0]
        if math.prod(b.shape[1:]) != rank:
            return None
        rows, columns = shape[0], math.prod(shape[1:])
        transposed = is_embedding or bool(self.config.get("fan_in_fan_out"))
        if (rows, columns) == ((ins, outs) if transposed else (outs, ins)):
            return {name: (Block(a, b, scale, 0, rows, transposed),)}
        # PEFT corrects the setting by the class of the module, which no file names.
        if not is_embedding and rows != columns and (rows, columns) == (ins, outs):
            return {name: (Block(a, b, scale, 0, rows, True),)}
        return None

    def _experts(
        self, path: str, a: StoredTensor, b: StoredTensor
    ) -> dict[str, tuple[Block, ...]] | None:
        while path.endswith(".base_layer"):
            path = path.removesuffix(".base_layer")
        if len(a.shape) != 2 or len(b.shape) != 2 or self.config.get("alpha_pattern"):
            return None
        below = self.names.below(path)
        stacked = {
            name: self.base.tensors[name].shape
            for rest, name in below.items()
            if "." not in rest and len(self.base.tensors[name].shape) == 3
        }
        if stacked:
            return self._stacked(path, stacked, a, b)
        return self._unstacked(path, below, a, b)

    def _stacked(
        self, path: str, shapes: Mapping[str, tuple[int, ...]], a: StoredTensor, b: StoredTensor
    ) -> dict[str, tuple[Block, ...]] | None:
        found = []
        for name, (experts, one, two) in shapes.items():
            sizes = (b.shape[0], a.shape[1])
            if experts and not a.shape[0] % experts and (one, two) == sizes:
                found.append((name, experts, one, False))
            if experts and not a.shape[0] % experts and (two, one) == sizes:
                found.append((name, experts, one, True))
        if len(found) != 1:
            return None  # square, or two parameters of the same shape
        name, experts, rows, transposed = found[0]
        scale = self.scale(path, a.shape[0] // experts)
        if scale is None:
            return None
        return {
            name: tuple(
                Block(a, b, scale, expert * rows, rows, transposed, 0, (expert, experts))
                for expert in range(experts)
            )
        }

    def _unstacked(
        self, path: str, below: Mapping[str, str], a: StoredTensor, b: StoredTensor
    ) -> dict[str, tuple[Block, ...]] | None:
        """Experts that the files keep one by one, and the model stacks."""
        parts: dict[str, dict[int, str]] = {}
        for rest, name in below.items():
            if (found := _EXPERT.fullmatch(rest)) is not None:
                parts.setdefault(found[2], {})[int(found[1])] = name
        gate, up, down = (
            next((parts[key] for key in keys if key in parts), None)
            for keys in (_GATES, _UPS, _DOWNS)
        )
        if not (gate and up and down) or not set(gate) == set(up) == set(down):
            return None
        experts = len(gate)
        shape = self.base.tensors[next(iter(gate.values()))].shape
        firsts, lasts = ({*gate.values(), *up.values()}, set(down.values()))
        if len(shape) != 2 or not (self._have(firsts, shape) and self._have(lasts, shape[::-1])):
            return None
        inner, hidden = shape
        scale = self.scale(path, a.shape[0] // experts)
        if scale is None or a.shape[0] % experts or set(gate) != set(range(experts)):
            return None
        if (b.shape[0], a.shape[1]) == (2 * inner, hidden):
            halves = [(gate, 0), (up, inner)]
            rows = inner
        elif (b.shape[0], a.shape[1]) == (hidden, inner):
            halves = [(down, 0)]
            rows = hidden
        else:
            return None
        return {
            name: (Block(a, b, scale, 0, rows, False, offset, (expert, experts)),)
            for names, offset in halves
            for expert, name in names.items()
        }


def plan_merge(adapter: StoredPart, base: StoredPart) -> MergePlan | str:
    """What merging ``adapter`` changes in ``base``; a reason in words where that is not known."""
    config = adapter.folder.adapter_config
    kind = config.get("peft_type")
    other = [key for key in _OTHER_MERGES if config.get(key)]
    if not lora.is_lora(config) or other:
        what = ", ".join(other) or quoted(kind)
        return f"a merge of {what} is not known here"
    planner = _Planner(config, base)
    for path, tensors in lora_modules(adapter).items():
        planner.add(path, tensors)
    replaced: dict[str, StoredTensor] = {}
    for name, tensor in adapter.tensors.items():
        if lora.place_of(name) is not None:
            continue
        plain = name.removeprefix(PEFT_PREFIX)
        if plain.endswith(_TOKENS):
            planner.touched |= planner._named(f"{plain.removesuffix(_TOKENS)}.weight")
        elif _BASE_LAYER in plain and planner.names.find(plain.replace(_BASE_LAYER, ".", 1)):
            continue  # PEFT saves embeddings that it adapts, too, as they were before the merge
        elif (found := planner.names.find(plain)) is not None:
            replaced[found] = tensor
        else:
            planner.unjudged.append(f"{name} has no tensor in the base")
    return MergePlan(planner.targets, replaced, frozenset(planner.touched), tuple(planner.unjudged))


def lora_modules(adapter: StoredPart) -> dict[str, dict[str, StoredTensor]]:
    """The LoRA tensors of each module by its path, by the part of LoRA's and what follows it."""
    found: dict[str, dict[str, StoredTensor]] = {}
    for name, tensor in adapter.tensors.items():
        if (place := lora.place_of(name)) is not None:
            found.setdefault(place[0], {})[place[1]] = tensor
    return found


def _pair(tensors: Mapping[str, StoredTensor]) -> tuple[StoredTensor | None, StoredTensor | None]:
    def find(part: str) -> StoredTensor | None:
        keys = (f"lora_{part}.weight", f"lora_{part}", f"lora_embedding_{part}")
        return next((tensors[key] for key in keys if key in tensors), None)

    return find("A"), find("B")


def _setting(config: Mapping[str, Any], path: str) -> float | None:
    """``lora_alpha`` of the module at ``path``; None where the patterns are not understood."""
    patterns = config.get("alpha_pattern") or {}
    # Patterns are regular expressions; those of a stranger can keep the processor for hours.
    if not isinstance(patterns, dict) or not all(map(_PLAIN_PATTERN.fullmatch, patterns)):
        return None
    names = set(_names_of(path))
    found = next((patterns[key] for key in patterns if key in names), None)
    alpha = config.get("lora_alpha", _DEFAULT_ALPHA) if found is None else found
    return float(alpha) if type(alpha) in (int, float) and abs(alpha) < _MAX_ALPHA else None


def _names_of(path: str) -> Iterator[str]:
    yield f"^{path}"
    yield from lora.suffixes(path)
