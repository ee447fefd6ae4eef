"""What a configuration says under several names, and what it claims of a folder.

Readers of different ages look for one setting under different names: ``transformers`` 5 writes
the rope settings into ``rope_parameters`` and the dtype as ``dtype``, older readers take
``rope_theta``, ``rope_scaling`` and ``torch_dtype``, and their defaults where there are none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

NEW_CLASS = "TokenizersBackend"
OLD_CLASS = "PreTrainedTokenizerFast"
"""The class of a tokenizer that is its ``tokenizer.json``, in ``transformers`` 5 and before."""

_THETA = "rope_theta"
_ROPE, _SCALING = "rope_parameters", "rope_scaling"
_TYPE = "rope_type"
_DTYPES = ("dtype", "torch_dtype")
_EXPERTS = ("num_experts", "num_local_experts")
_FULL = "full_attention"
_THETAS_OF_FULL = (_THETA, "global_rope_theta")
_EXPERTS_PUBLISHED = {"qwen3_moe": "num_experts"}
"""The name that published checkpoints have, where ``transformers`` 5 writes another."""
_CLAIM = re.compile(r"(num_nextn_predict_layers|(num_)?mtp_(num_)?(hidden_)?layers)")
_OF_CLAIM = re.compile(r"(^|\.)(mtp|nextn)[._]")
_NUMBERED = re.compile(r"(^|\.)layers\.(?P<number>\d{1,9})\.")


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting of a configuration, or of one inside of it.

    Attributes:
        name: its name, after those of the configurations that it is in, with dots between.
        value: its value.
    """

    name: str
    value: Any


def disagreements(config: Mapping[str, Any]) -> Iterator[tuple[Setting, Setting]]:
    """Pairs of names of one setting that have two values."""
    for place, own in _configurations(config):
        for one, other in (*_rope_pairs(own), _DTYPES, _EXPERTS):
            first, second = _find(own, one), _find(own, other)
            if first is not None and second is not None and not _same(first, second):
                yield Setting(f"{place}{one}", first), Setting(f"{place}{other}", second)


def missing_rope(config: Mapping[str, Any]) -> Iterator[Setting]:
    """Rope settings that stand in ``rope_parameters`` only, by their older names."""
    for place, own in _configurations(config):
        rope = own.get(_ROPE)
        if not isinstance(rope, Mapping):
            continue
        by_layer = isinstance(rope.get(_FULL), Mapping)
        one = rope[_FULL] if by_layer else rope
        names = _THETAS_OF_FULL if by_layer else (_THETA,)
        if one.get(_THETA) is not None and not any(name in own for name in names):
            yield Setting(f"{place}{_THETA}", one[_THETA])
        kind = one.get(_TYPE, one.get("type"))
        if kind not in (None, "default") and not own.get(_SCALING):
            yield Setting(f"{place}{_SCALING}", {_TYPE: kind})


def missing_dtype(config: Mapping[str, Any]) -> Iterator[Setting]:
    """The dtype, where it has one of its two names only."""
    there = [name for name in _DTYPES if config.get(name) is not None]
    if len(there) == 1:
        other = next(name for name in _DTYPES if name not in there)
        yield Setting(other, config[there[0]])


def missing_experts(config: Mapping[str, Any]) -> Iterator[Setting]:
    """The number of experts, where it lacks the name that published checkpoints have."""
    for place, own in _configurations(config):
        published = _EXPERTS_PUBLISHED.get(str(own.get("model_type")))
        there = [own[name] for name in _EXPERTS if name in own]
        if published and there and published not in own:
            yield Setting(f"{place}{published}", there[0])


def unknown_to_older_tokenizers(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What in ``tokenizer_config.json`` stops readers before ``transformers`` 5: wanted, found."""
    if config.get("tokenizer_class") == NEW_CLASS:
        yield f"tokenizer_class is {OLD_CLASS!r}", repr(NEW_CLASS)
    if isinstance(config.get("extra_special_tokens"), list):
        yield "the tokens as additional_special_tokens", "a list as extra_special_tokens"


def claims(config: Mapping[str, Any]) -> Iterator[Setting]:
    """Settings that claim layers which predict further tokens."""
    for place, own in _configurations(config):
        for name, value in own.items():
            if type(value) is int and value > 0 and is_claim(name):
                yield Setting(f"{place}{name}", value)


def is_claim(name: str) -> bool:
    """Whether a setting of this name says how many layers predict further tokens."""
    return _CLAIM.fullmatch(name) is not None


def has_claimed_layers(config: Mapping[str, Any], names: Iterable[str]) -> bool:
    """Whether one of the tensors ``names`` is of a layer that predicts further tokens."""
    counts = [own.get("num_hidden_layers") for _, own in _configurations(config)]
    layers = next((count for count in counts if type(count) is int), None)
    for name in names:
        if _OF_CLAIM.search(name):
            return True
        numbered = _NUMBERED.search(name)
        if layers is not None and numbered and int(numbered["number"]) >= layers:
            return True
    return False


def _configurations(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The configuration and those of its parts, each with the beginning of its settings' names."""
    yield "", config
    for name, value in config.items():
        if isinstance(value, Mapping) and name.endswith("_config") and "quant" not in name:
            yield f"{name}.", value


def _rope_pairs(own: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    rope, scaling = own.get(_ROPE), own.get(_SCALING)
    if not isinstance(rope, Mapping):
        return
    if isinstance(rope.get(_FULL), Mapping):
        yield _THETA, f"{_ROPE}.{_FULL}.{_THETA}"
        return
    yield _THETA, f"{_ROPE}.{_THETA}"
    if isinstance(scaling, Mapping):
        for key in scaling:
            if key != "type":
                yield f"{_SCALING}.{key}", f"{_ROPE}.{key}"


def _find(own: Mapping[str, Any], path: str) -> Any:
    found: Any = own
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, str) and isinstance(other, str):
        return one.removeprefix("torch.") == other.removeprefix("torch.")
    return bool(one == other)
