"""Settings of ``config.json`` under the names that they had before transformers 5.

Nothing here knows a model type; ``published`` does. A name is right for a model where its class
reads it as the old spelling of what is there already; a class that does not know it would keep it
as one setting more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from canonical_saver.publishing.portable import published
from canonical_saver.publishing.portable.key import Choice, Key, Place, part

_OF_4 = "transformers 4 and mlx-lm"
_OF_ROPE = "transformers 4, mlx-lm and mistral.rs"
_OF_DTYPE = "transformers before 4.56"
_OF_EXPERTS = "readers of transformers 4, mlx-lm and keras-hub that count experts by this name"
_OF_INTERVAL = "mlx-lm and transformers before 4.53, which take a default"

_THETA, _PARTIAL, _TYPE = "rope_theta", "partial_rotary_factor", "rope_type"
_THETAS = (_THETA, "rotary_emb_base")
_PARTIALS = (_PARTIAL, "rotary_pct")
_FULL, _SLIDING = "full_attention", "sliding_attention"
_INTERVALS = {_SLIDING: "sliding_window_pattern", "linear_attention": "full_attention_interval"}
_FULL_THETAS = (_THETA, "global_rope_theta")
_SLIDING_THETAS = ("rope_local_base_freq", "local_rope_theta", _THETA)


def candidates(config: Mapping[str, Any]) -> Iterator[Choice]:
    """Find what may be added to a configuration and to those inside of it.

    Args:
        config: what ``config.json`` has.

    Yields:
        Settings by their old names. Of one setting's spellings the class has to decide.
    """
    for inside in _places(config):
        own = part(config, inside)
        if isinstance(own.get("dtype"), str):
            yield from _unless_there(own, (Key(inside, "torch_dtype", own["dtype"], _OF_DTYPE),))
        if "num_local_experts" in own:
            value = own["num_local_experts"]
            yield from _unless_there(own, (Key(inside, "num_experts", value, _OF_EXPERTS),))
        rope = own.get("rope_parameters")
        if isinstance(rope, Mapping) and rope:
            yield from _rope(inside, own, rope)
        yield from _intervals(inside, own)
        if "auto_map" not in config:  # what code of the model's own computes is not known
            yield from published.candidates(inside, own)


def _intervals(inside: Place, own: Mapping[str, Any]) -> Iterator[Choice]:
    """How many layers there are for each that attends to everything, once given by a number."""
    kinds = own.get("layer_types")
    if not isinstance(kinds, list):
        return
    for other, name in _INTERVALS.items():
        interval = _interval(kinds, other)
        if interval and name not in own:
            key = Key(inside, name, interval, _OF_INTERVAL)
            yield Choice((key,), kept=True, makes="layer_types")


def _interval(kinds: list[Any], other: str) -> int:
    """The number n where each n-th layer, and no other, is of full attention; 0 for none."""
    interval = kinds.index(_FULL) + 1 if _FULL in kinds else 0
    expected = [other if (place + 1) % (interval or 1) else _FULL for place in range(len(kinds))]
    return interval if kinds == expected else 0


def _rope(inside: Place, own: Mapping[str, Any], rope: Mapping[str, Any]) -> Iterator[Choice]:
    """The settings of rotary positions, which are now in an object of their own.

    Those of layers of several kinds are in an object for each kind.
    """
    by_layer = {kind: one for kind, one in rope.items() if isinstance(one, Mapping)}
    if not by_layer:
        yield from _one_rope(inside, own, rope, _THETAS)
        return
    if _FULL in by_layer:
        yield from _one_rope(inside, own, by_layer[_FULL], _FULL_THETAS)
    if _SLIDING in by_layer:
        yield from _named(inside, own, by_layer[_SLIDING], _THETA, _SLIDING_THETAS)


def _one_rope(
    inside: Place, own: Mapping[str, Any], rope: Mapping[str, Any], thetas: tuple[str, ...]
) -> Iterator[Choice]:
    yield from _named(inside, own, rope, _THETA, thetas)
    yield from _named(inside, own, rope, _PARTIAL, _PARTIALS)
    scaling = {key: value for key, value in rope.items() if key not in (_THETA, _PARTIAL)}
    if set(scaling) <= {_TYPE, "type"} and scaling.get(_TYPE, "default") == "default":
        return
    spellings = [scaling]
    if "type" in scaling:  # Phi-3 of transformers 4 takes no key more than these
        three = ("type", "short_factor", "long_factor")
        spellings.insert(0, {key: scaling[key] for key in three if key in scaling})
    pretrained = "original_max_position_embeddings"
    if scaling.get(_TYPE) == "longrope" and scaling.get(pretrained) is not None:
        key = Key(inside, pretrained, scaling[pretrained], _OF_4)
        yield from _unless_there(own, (key,), kept=True)
    name = "rope_scaling"
    yield from _unless_there(own, tuple(Key(inside, name, value, _OF_4) for value in spellings))


def _named(
    inside: Place,
    own: Mapping[str, Any],
    rope: Mapping[str, Any],
    name: str,
    spellings: tuple[str, ...],
) -> Iterator[Choice]:
    """One setting of rotary positions by its old names."""
    if rope.get(name) is None:
        return
    keys = tuple(Key(inside, spelling, rope[name], _OF_ROPE) for spelling in spellings)
    yield from _unless_there(own, keys)


def _unless_there(
    own: Mapping[str, Any], keys: tuple[Key, ...], *, kept: bool = False
) -> Iterator[Choice]:
    """A choice, unless the configuration has the setting by one of these names already."""
    if not any(key.name in own for key in keys):
        first = keys[0]
        # Most classes have never known another name of the experts, and all turn everything.
        nothing = first.name == "num_experts" or (first.name == _PARTIAL and first.value == 1)
        yield Choice(keys, "" if nothing else _missed(first), kept)


def _missed(key: Key) -> str:
    return (
        f"{key.place}, which {key.readers} look for: the installed transformers would read the "
        "configuration differently with it; these readers may take a default"
    )


def _places(config: Mapping[str, Any], inside: Place = ()) -> Iterator[Place]:
    """The configuration and those inside of it, as those of its text and vision parts."""
    yield inside
    for name, value in config.items():
        if name == "quantization_config" or not isinstance(value, Mapping):
            continue
        if name.endswith("_config") or "model_type" in value:
            yield from _places(value, (*inside, name))
