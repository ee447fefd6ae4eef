"""The files next to the weights, compared with the live objects that they are of.

What is in memory is written to a folder of its own, as a save would write it, and both are read
back as data. Nothing of the folder is executed. What a library writes for itself, as its version,
says nothing about the model and is passed over.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from canonical_saver.proving.proof import Companion
from canonical_saver.proving.safe_files import UnreadableError, parse_object, quoted, read_bytes
from canonical_saver.publishing import sidecars
from canonical_saver.publishing.portable.config_keys import candidates
from canonical_saver.publishing.portable.key import part
from canonical_saver.publishing.portable.tokenizer_keys import portable
from canonical_saver.request import build
from canonical_saver.weights import is_peft
from canonical_saver.weights.prediction_layers import is_claim
from canonical_saver.weights.saved_tensors import WeightSet

_log = logging.getLogger("canonical_saver")

MOST_SHOWN = 60
"""Letters of a value that are shown."""

_CONFIG, _GENERATION, _ADAPTER = "config.json", "generation_config.json", "adapter_config.json"
_TEMPLATE, _TOKENIZER = "chat_template.jinja", "tokenizer_config.json"

_OF_LIBRARIES = frozenset(
    {
        "transformers_version",
        "peft_version",
        "_name_or_path",
        "_commit_hash",
        "_attn_implementation",
        "_from_model_config",
        "dtype",
        "torch_dtype",
        "use_cache",
        "auto_map",
        "auto_mapping",
        "inference_mode",
        "base_model_name_or_path",
        "revision",
    }
)
"""Keys that differ between two saves of one model: by the library, by the place that it was loaded
from, or by what a trainer turns off while it trains. The dtype is that of the tensors, which are
compared."""

_OF_TOKENIZERS = frozenset(
    {
        "name_or_path",
        "tokenizer_file",
        "is_local",
        "local_files_only",
        "transformers_version",
        "processor_class",
        "special_tokens_map_file",
        "backend",
        # A fast tokenizer keeps here how it was called last.
        "truncation",
        "padding",
        "padding_side",
        "truncation_side",
        "model_max_length",
        "chat_template",
    }
)


def compare(
    model: Any, weight_sets: Sequence[WeightSet], tokenizer: Any, folder: Path
) -> list[Companion]:
    """Compare the files next to the weights with what is in memory; for rank 0.

    Args:
        model: the unwrapped model; it stays as it is.
        weight_sets: what a save of it would hold.
        tokenizer: tokenizer or processor, or None to leave it out.
        folder: the folder.

    Returns:
        What differs, and what is missing of what a loader needs.
    """
    with TemporaryDirectory() as made:
        fresh = Path(made)
        request = build(model, fresh, tokenizer=tokenizer, portable=False)
        written = sidecars.write(model, list(weight_sets), request, fresh)
        for text in written.warnings:
            _log.warning("not compared: %s", text)
        found: list[Companion] = []
        if is_peft(model):
            for weights in weight_sets:
                place = f"{weights.folder}/" if weights.folder else ""
                found += _settings(fresh, folder, place + _ADAPTER, _adapter_values)
        elif (fresh / _CONFIG).exists():
            found += _settings(fresh, folder, _CONFIG, _reader_of(model.config))
            found += _architecture(fresh, folder)
            if (fresh / _GENERATION).exists() and (folder / _GENERATION).exists():
                found += _settings(fresh, folder, _GENERATION, _reader_of(model.generation_config))
        if tokenizer is not None:
            found += _tokenizer(fresh, folder)
    return found


def _reader_of(config: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Reads settings by their class, which fills in the defaults that a file may leave out.

    What a portable save adds and the class keeps as it is, beside what it knows, is left out.
    """
    choices = candidates(config.to_dict())
    added = [key for choice in choices if choice.kept for key in choice.spellings]

    def read(values: dict[str, Any]) -> dict[str, Any]:
        try:
            found = dict(type(config).from_dict(values).to_dict())
            for key in added:
                own = part(found, key.inside)
                if _equal(own.get(key.name), key.value):
                    own.pop(key.name)
        except Exception as error:
            raise UnreadableError(f"expected settings of a {type(config).__name__}") from error
        return found

    return read


def _adapter_values(values: dict[str, Any]) -> dict[str, Any]:
    """The settings of an adapter; a key with the value None is one that is not there."""
    return {
        key: sorted(value, key=str) if isinstance(value, list) else value
        for key, value in values.items()
        if value is not None
    }


def _settings(
    fresh: Path, folder: Path, name: str, read: Callable[[dict[str, Any]], dict[str, Any]]
) -> Iterator[Companion]:
    if not (fresh / name).exists():
        return
    try:
        values = parse_object(read_bytes(folder / name))
        found = read(values)
        expected = read(parse_object(read_bytes(fresh / name)))
    except (OSError, UnreadableError) as error:
        yield _unreadable(name, error)
        return
    ignored = _OF_LIBRARIES | {"architectures"}
    yield from _differing(name, expected, found, ignored)


def _architecture(fresh: Path, folder: Path) -> Iterator[Companion]:
    """The class that loads the model."""
    kinds = []
    for place in (fresh, folder):
        try:
            kinds.append(parse_object(read_bytes(place / _CONFIG)).get("architectures"))
        except (OSError, UnreadableError):
            return  # said already
    if kinds[0] != kinds[1]:
        yield Companion(_CONFIG, "architectures", _shown(kinds[0]), _shown(kinds[1]))


def _tokenizer(fresh: Path, folder: Path) -> Iterator[Companion]:
    for path in sorted(fresh.rglob("*.json")):
        name = path.relative_to(fresh).as_posix()
        if name in (_CONFIG, _GENERATION) or path.name == _ADAPTER:
            continue
        try:
            expected = parse_object(read_bytes(path))
            found = parse_object(read_bytes(folder / name))
        except (OSError, UnreadableError) as error:
            yield _unreadable(name, error)
            continue
        if path.name == _TOKENIZER:  # in the spelling of one version
            expected, found = (portable(values, {})[0] for values in (expected, found))
        yield from _differing(name, expected, found, _OF_TOKENIZERS)
    templates = [_template(place) for place in (fresh, folder)]
    if templates[0] != templates[1]:
        yield Companion(_TEMPLATE, "", _shown(templates[0]), _shown(templates[1]))


def _template(place: Path) -> str | None:
    """The chat template, from where a tokenizer or a processor has it."""
    try:
        return read_bytes(place / _TEMPLATE).decode()
    except (OSError, ValueError):
        pass
    for name in ("tokenizer_config.json", "processor_config.json"):
        try:
            value = parse_object(read_bytes(place / name)).get("chat_template")
        except (OSError, UnreadableError):
            continue
        if isinstance(value, str):
            return value
    return None


def _differing(
    name: str,
    expected: Mapping[str, Any],
    found: Mapping[str, Any],
    ignored: frozenset[str],
    place: str = "",
) -> Iterator[Companion]:
    """Yield the keys whose values differ, inside of objects too."""
    for key in sorted(expected.keys() | found.keys()):
        if key in ignored:
            continue
        here = f"{place}.{key}" if place else key
        mine, there = expected.get(key), found.get(key)
        if isinstance(mine, dict) and isinstance(there, dict):
            yield from _differing(name, mine, there, ignored, here)
        elif is_claim(str(key)) and there == 0:
            continue  # the folder has no such layers, and says so
        elif not _equal(mine, there):
            yield Companion(name, quoted(here)[1:-1], _shown(mine), _shown(there))


def _equal(mine: Any, there: Any) -> bool:
    # A NaN is not equal to itself, and 1 equals True.
    return json.dumps(mine, sort_keys=True, default=str) == json.dumps(
        there, sort_keys=True, default=str
    )


def _unreadable(name: str, error: Exception) -> Companion:
    if isinstance(error, FileNotFoundError):
        return Companion(name, "", "the file", "none")
    reason = error.strerror if isinstance(error, OSError) else error
    return Companion(name, "", "what is in memory", f"a file that cannot be read ({reason})")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."
