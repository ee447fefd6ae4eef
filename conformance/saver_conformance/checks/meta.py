"""META: configuration and tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from saver_conformance.cases.case import Case
from saver_conformance.checks.evidence import BlockedError, Evidence
from saver_conformance.checks.registry import check
from saver_conformance.folder.layout import (
    CHAT_TEMPLATE,
    CONFIG,
    GENERATION_CONFIG,
    TOKENIZER,
    TOKENIZER_CONFIG,
    UnreadableJsonError,
    read_json_object,
)
from saver_conformance.folder.portability import has_claimed_layers, is_claim
from saver_conformance.observation.finding import Defect
from saver_conformance.safe_text import quoted

# Fields of config.json with a clause of their own.
_OWN_CLAUSE = frozenset({"model_type", "architectures", "dtype", "torch_dtype", "vocab_size"})
# Fields that no library has a fitting default for; others may be left out.
_INDISPENSABLE = frozenset(
    {
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "tie_word_embeddings",
    }
)

# Configurations inside of the model's own, of its text, vision or audio part.
_COMPOSED = frozenset({"text_config", "vision_config", "audio_config"})
# Their fields that say how they were loaded, and nothing about what was trained.
_HOW_LOADED = frozenset({"_name_or_path", "architectures", "dtype", "transformers_version"})


def _has_chat_template(case: Case) -> bool:
    return case.tokenizer == "chat"


def _generates(case: Case) -> bool:
    return case.family.generates


@check("META-001")
def config_is_readable(e: Evidence) -> Iterator[Defect]:
    """``config.json`` is an object with the right ``model_type``."""
    try:
        config = e.config
    except BlockedError as reason:
        yield e.defect("a JSON object", str(reason), file=CONFIG)
        return
    yield from _field(e, config, "model_type")


@check("META-002")
def architecture(e: Evidence) -> Iterator[Defect]:
    """``architectures`` is that of the model."""
    yield from _field(e, e.config, "architectures")


@check("META-003")
def dtype(e: Evidence) -> Iterator[Defect]:
    """``dtype`` is that of the model, under its new or its old name."""
    wanted = e.expected.config.get("dtype")
    for key in ("dtype", "torch_dtype"):
        if key in e.config:
            if e.config[key] != wanted:
                yield e.defect(f"{key} is {wanted!r}", quoted(e.config[key]), file=CONFIG)
            return
    yield e.defect(f"dtype is {wanted!r}", "no dtype", file=CONFIG)


@check("META-004")
def vocabulary_size(e: Evidence) -> Iterator[Defect]:
    """``vocab_size`` is that of the model."""
    yield from _field(e, e.config, "vocab_size")


@check("META-005")
def other_settings(e: Evidence) -> Iterator[Defect]:
    """All other fields are those of the model; what has a default may be left out."""
    for key, wanted in e.expected.config.items():
        if key in _OWN_CLAUSE or not (key in e.config or key in _INDISPENSABLE):
            continue
        found = e.config.get(key)
        names = {*e.expected.required, *e.file_of}
        if is_claim(key) and found == 0 and not has_claimed_layers(e.config, names):
            continue  # a saver may stop claiming layers that training has lost
        if key in _COMPOSED and isinstance(wanted, Mapping) and isinstance(found, Mapping):
            yield from _composed(e, key, wanted, found)
        else:
            yield from _field(e, e.config, key)


def _composed(
    e: Evidence, place: str, wanted: Mapping[str, Any], found: Mapping[str, Any]
) -> Iterator[Defect]:
    """The fields of a configuration inside of another one, what may be left out again left out."""
    for key, value in wanted.items():
        if key in found and key not in _HOW_LOADED and found[key] != value:
            yield e.defect(f"{place}.{key} is {value!r}", quoted(found[key]), file=CONFIG)


@check("META-006", when=_generates)
def generation_config(e: Evidence) -> Iterator[Defect]:
    """``generation_config.json`` is an object with the settings of the training."""
    try:
        saved = read_json_object(e.folder / GENERATION_CONFIG)
    except UnreadableJsonError as error:
        yield e.defect("a JSON object", str(error), file=GENERATION_CONFIG)
        return
    for key, wanted in e.expected.generation.items():
        if saved.get(key) != wanted:
            found = quoted(saved[key]) if key in saved else f"no {key}"
            yield e.defect(f"{key} is {wanted!r}", found, file=GENERATION_CONFIG)


@check("META-007")
def tokenizer(e: Evidence) -> Iterator[Defect]:
    """The tokenizer's files are there, with its vocabulary."""
    try:
        read_json_object(e.folder / TOKENIZER_CONFIG)
    except UnreadableJsonError as error:
        yield e.defect("a JSON object", str(error), file=TOKENIZER_CONFIG)
    try:
        saved = _vocabulary(read_json_object(e.folder / TOKENIZER))
    except UnreadableJsonError as error:
        yield e.defect("a JSON object", str(error), file=TOKENIZER)
        return
    wanted = dict(e.expected.vocabulary)
    if saved != wanted:
        differing = sorted(
            token for token in {*saved, *wanted} if saved.get(token) != wanted.get(token)
        )
        token = differing[0]
        yield e.defect(
            f"{len(wanted)} tokens, {quoted(token)} with id {wanted.get(token)}",
            f"{len(saved)} tokens, {quoted(token)} with id {quoted(saved.get(token))}; "
            f"{len(differing)} tokens differ",
            file=TOKENIZER,
        )


@check("META-008", when=_has_chat_template)
def chat_template(e: Evidence) -> Iterator[Defect]:
    """The chat template stands in its own file or in the tokenizer's configuration."""
    wanted = e.expected.chat_template
    path = e.folder / CHAT_TEMPLATE
    if path.is_file():
        found: Any = path.read_bytes().decode(errors="replace")
        file = CHAT_TEMPLATE
    else:
        file = TOKENIZER_CONFIG
        try:
            found = read_json_object(e.folder / file).get("chat_template")
        except UnreadableJsonError as error:
            raise BlockedError(str(error)) from error
    if found != wanted:
        yield e.defect(f"the template {wanted!r}", quoted(found), file=file)


@check("META-009")
def no_local_path(e: Evidence) -> Iterator[Defect]:
    """``_name_or_path`` is left out."""
    if "_name_or_path" in e.config:
        yield e.defect(
            "no _name_or_path",
            f"_name_or_path is {quoted(e.config['_name_or_path'])}",
            file=CONFIG,
        )


def _field(e: Evidence, config: Mapping[str, Any], key: str) -> Iterator[Defect]:
    if key not in e.expected.config:
        return
    wanted = e.expected.config[key]
    if key not in config:
        yield e.defect(f"{key} is {wanted!r}", f"no {key}", file=CONFIG)
    elif config[key] != wanted:
        yield e.defect(f"{key} is {wanted!r}", quoted(config[key]), file=CONFIG)


def _vocabulary(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Tokens and ids of a ``tokenizer.json``; whatever has another form is left out."""
    model = plain.get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    tokens: dict[str, Any] = {}
    if isinstance(vocab, dict):
        tokens.update(vocab)
    elif isinstance(vocab, list):
        # Unigram models hold [token, score] pairs, the id being the position.
        for number, pair in enumerate(vocab):
            if isinstance(pair, list) and pair and isinstance(pair[0], str):
                tokens[pair[0]] = number
    added = plain.get("added_tokens")
    for token in added if isinstance(added, list) else []:
        if isinstance(token, dict) and isinstance(token.get("content"), str):
            tokens[token["content"]] = token.get("id")
    return tokens
