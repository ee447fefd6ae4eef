"""Which tensor of a folder is which tensor of the model, by names, shapes and dtypes alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum

import torch

from canonical_saver.formats.layout import stored_dtype
from canonical_saver.formats.safetensors import DTYPE_NAMES
from canonical_saver.proving.found_tensors import FoundTensor
from canonical_saver.proving.proof import WrapperName, WrongShape
from canonical_saver.weights.saved_tensors import SavedTensor, WeightSet, direct
from canonical_saver.weights.tensors import ModelTensor

_DTYPES = {name: dtype for dtype, name in DTYPE_NAMES.items()}
_WRAPPERS = frozenset(
    {
        "module",
        "_orig_mod",
        "_fsdp_wrapped_module",
        "_checkpoint_wrapped_module",
        "_forward_module",
        "base_layer",
        "original_module",
        "modules_to_save",
    }
)
_ADAPTED = "base_model.model."


class Way(Enum):
    """Under which of its names a tensor of the model lies in the folder."""

    CANONICAL = "as a save names it"
    MEMORY = "as it is named in memory"
    ALIAS = "by another name of a tied tensor"
    WRAPPER = "by its name and that of a wrapper"
    AGAIN = "a second time, by another name"


@dataclass(frozen=True, eq=False)
class Match:
    """A tensor of the folder, and the tensor of the model that it should be.

    Attributes:
        found: the tensor of the folder.
        saved: the tensor of the model, in the form that it has in the folder.
        dtype: the dtype that it has there.
        expected_dtype: the dtype that it should have there.
        way: by which of its names it lies there.
        place: the folder of its weights.
    """

    found: FoundTensor
    saved: SavedTensor
    dtype: torch.dtype
    expected_dtype: torch.dtype
    way: Way
    place: str = ""

    @property
    def label(self) -> str:
        """Its name in the folder, behind the folder of its weights."""
        return labelled(self.place, self.found.name)


@dataclass(frozen=True)
class Matching:
    """How the tensors of one place of a folder are those of the model.

    Attributes:
        matches: pairs whose bytes can be compared.
        missing: names of the model's tensors that are not there.
        foreign: names that are there, and none of the model.
        wrong: what has another shape, or a dtype of another kind.
        wrappers: what has a wrapper in its name, or lacks the one of adapters.
    """

    matches: tuple[Match, ...]
    missing: tuple[str, ...]
    foreign: tuple[str, ...]
    wrong: tuple[WrongShape, ...]
    wrappers: tuple[WrapperName, ...]


def labelled(place: str, name: str) -> str:
    """The name of a tensor behind the folder of its weights."""
    return f"{place}/{name}" if place else name


def match(
    tensors: Mapping[str, FoundTensor],
    weights: WeightSet,
    named: Mapping[str, ModelTensor],
    dtype: torch.dtype | None,
    *,
    merged: bool = False,
) -> Matching:
    """Find for each tensor of a folder the tensor of the model that it should be.

    Args:
        tensors: those of the folder, by their names.
        weights: what a save of the model would hold there.
        named: all tensors of the model, by their names in memory.
        dtype: the dtype that floating-point tensors were cast to, if any.
        merged: the weights are those of a base with its adapters merged into it, which no tensor in
            memory is.
    """
    pairs = _Pairs(dict(tensors), weights, named, whole=weights.adapter is None and not merged)
    matches: list[Match] = []
    wrong: list[WrongShape] = []
    for way, tensor, saved in pairs.found():
        expected_dtype = stored_dtype(saved, dtype)
        kind = _DTYPES.get(tensor.dtype)
        label = labelled(weights.folder, tensor.name)
        if kind is None or tensor.shape != saved.shape or not _comparable(kind, expected_dtype):
            expected = f"{DTYPE_NAMES.get(expected_dtype, str(expected_dtype))} {list(saved.shape)}"
            found = f"{tensor.dtype} {list(tensor.shape)}"
            wrong.append(WrongShape(label, tensor.file, expected, found))
        else:
            matches.append(Match(tensor, saved, kind, expected_dtype, way, weights.folder))
    wrappers = (
        WrapperName(labelled(weights.folder, found), labelled(weights.folder, expected))
        for found, expected in pairs.wrappers
    )
    return Matching(
        tuple(matches),
        tuple(labelled(weights.folder, name) for name in pairs.expected),
        tuple(labelled(weights.folder, name) for name in pairs.left),
        tuple(wrong),
        tuple(wrappers),
    )


class _Pairs:
    """Pairs names step by step; what is left in the end is missing or foreign.

    Attributes:
        left: the tensors of the folder that have no pair yet.
        expected: the tensors of the save that have no pair yet.
        wrappers: names with wrappers in them, and the names without.
    """

    def __init__(
        self,
        left: dict[str, FoundTensor],
        weights: WeightSet,
        named: Mapping[str, ModelTensor],
        *,
        whole: bool,
    ) -> None:
        self._whole = whole
        self.left, self._weights, self._named = left, weights, named
        self.expected = {saved.name: saved for saved in weights.saved_tensors}
        self.wrappers: list[tuple[str, str]] = []
        self._all = dict(self.expected)

    def found(self) -> Iterator[tuple[Way, FoundTensor, SavedTensor]]:
        """Yield pairs, and by which name each was found."""
        steps = [
            (Way.CANONICAL, self._by_name),
            (Way.MEMORY, self._in_memory),
            (Way.ALIAS, self._aliases),
            (Way.WRAPPER, self._wrapped),
            (Way.AGAIN, self._again),
        ]
        if not self._whole:  # no loader of adapters knows names in memory
            del steps[1:3]
        for way, pairs in steps:
            for name, saved in list(pairs()):
                yield way, self.left.pop(name), saved

    def _by_name(self) -> Iterator[tuple[str, SavedTensor]]:
        for name in self.expected.keys() & self.left.keys():
            yield name, self.expected.pop(name)

    def _in_memory(self) -> Iterator[tuple[str, SavedTensor]]:
        """Tensors whose form on the hub is another one than in memory, as fused experts."""
        sources = self._weights.model_tensors
        names = {id(model_tensor): name for name, model_tensor in sources.items()}
        paired: dict[str, SavedTensor] = {}
        for name, saved in list(self.expected.items()):
            of = {names.get(id(r.model_tensor), "") for r in saved.source_ranges or ()}
            of |= saved.needs
            if of and of <= self.left.keys():
                del self.expected[name]
                paired |= {one: replace(direct(one, sources[one]), fixed=saved.fixed) for one in of}
        yield from paired.items()

    def _aliases(self) -> Iterator[tuple[str, SavedTensor]]:
        by_identity: dict[object, list[str]] = {}
        for name in self.left.keys() & self._named.keys():
            by_identity.setdefault(self._named[name].identity, []).append(name)
        for name, saved in list(self.expected.items()):
            one = _only_source(saved)
            others = by_identity.get(one.identity, []) if one is not None else []
            if others:
                del self.expected[name]
                yield others.pop(), saved

    def _wrapped(self) -> Iterator[tuple[str, SavedTensor]]:
        adapter = self._weights.adapter
        plain = {_plain(name, adapter): name for name in self.expected}
        known = {_plain(name, adapter): name for name in self._all}
        for name in sorted(self.left):
            short = _plain(name, adapter)
            if short in plain:
                expected = plain.pop(short)
                self.wrappers.append((name, expected))
                yield name, self.expected.pop(expected)
            elif short in known and name not in self._named:
                self.wrappers.append((name, known[short]))
                yield name, self._all[known[short]]

    def _again(self) -> Iterator[tuple[str, SavedTensor]]:
        for name in sorted(self.left.keys() & self._named.keys()):
            if not self._named[name].needs:
                yield name, direct(name, self._named[name])


def _only_source(saved: SavedTensor) -> ModelTensor | None:
    """The tensor in memory that a saved one is, whole and alone."""
    ranges = saved.source_ranges or ()
    if len(ranges) != 1 or ranges[0].length != ranges[0].model_tensor.numel:
        return None
    return ranges[0].model_tensor


def _plain(name: str, adapter: str | None) -> str:
    """A name without all that wrappers add to names."""
    steps = name.removeprefix(_ADAPTED).split(".")
    steps = [step for step in steps if step not in _WRAPPERS and step != adapter]
    return ".".join(steps).removeprefix(_ADAPTED)


def _comparable(found: torch.dtype, expected: torch.dtype) -> bool:
    return found == expected or (found.is_floating_point and expected.is_floating_point)
