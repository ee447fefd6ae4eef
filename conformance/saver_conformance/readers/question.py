"""What readers are asked about a folder, and what they answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from saver_conformance.folder.layout import (
    ADAPTER_CONFIG,
    CHAT_TEMPLATE,
    CONFIG,
    TOKENIZER,
    TOKENIZER_CONFIG,
    UnreadableJsonError,
    read_json_object,
)
from saver_conformance.readers.reader import PARTS, Part
from saver_conformance.safe_text import quoted

TEXTS = (
    "w5 w6  w7w8,w9",
    "Hello, world! It's 12345 o'clock; don't we'll.",
    "def f(x):\n\treturn  x ** 2\n\n\n",
    "na\u00efve \u6771\u4eac \u0440\u0443\u0441\u0441\u043a\u0438\u0439 \U0001f680 e\u0301",
)
"""Texts on which tokenizers' pre-tokenizers differ: contractions, digits, spaces, scripts."""
MESSAGES = (
    {"role": "user", "content": "w4 w5 w6"},
    {"role": "assistant", "content": "w7 w8"},
    {"role": "user", "content": "w9 w10"},
)
"""A chat, in words of the suite's own tokenizers."""
NUMBERS = tuple(
    tuple(7 * place * place + 11 * place + 5 for place in range(length)) for length in (1, 7, 40)
)
"""Prompts, as numbers whose remainders by the size of the vocabulary are token ids; errors of
positions show in the long one."""
_OWN_CODE = ("auto_map", "model_file")
"""Settings that name code in the folder, which ``transformers`` and ``mlx-lm`` would run."""
_MAX_VOCABULARY = 10_000_000

Scores = Sequence[float] | Mapping[str, float]
"""What comes next: a number for each token, or by the ids of some tokens."""


class NoQuestionError(ValueError):
    """The folder cannot be given to readers; the message says why."""


@dataclass(frozen=True, slots=True)
class Question:
    """A folder, and what is asked about it.

    Attributes:
        folder: the folder of the whole model.
        adapter: the folder of the adapter on top of it; None for none.
        tokenizer: the folder with the tokenizer's files; None where there are none.
        texts: texts whose token ids are asked for.
        messages: a chat; empty where the folder has no chat template.
        prompts: token ids, after which the next one is asked for.
        model_type: as the configuration says.
        kinds: what the adapter is, of ``lora``, ``dora``, ``modules_to_save`` or another method.
    """

    folder: Path
    adapter: Path | None = None
    tokenizer: Path | None = None
    texts: tuple[str, ...] = TEXTS
    messages: tuple[Mapping[str, str], ...] = MESSAGES
    prompts: tuple[tuple[int, ...], ...] = ()
    model_type: str = ""
    kinds: tuple[str, ...] = ()

    def with_text(self, text: str) -> Question:
        """The same, with one text more."""
        return replace(self, texts=(*self.texts, text))

    def as_plain(self) -> dict[str, Any]:
        """The line that a program reads."""
        return {
            "folder": str(self.folder),
            "adapter": str(self.adapter or ""),
            "tokenizer": str(self.tokenizer or self.folder),
            "texts": list(self.texts) if self.tokenizer else [],
            "messages": [dict(message) for message in self.messages] if self.tokenizer else [],
            "prompts": [list(prompt) for prompt in self.prompts],
        }


@dataclass(frozen=True, slots=True)
class Answer:
    """What a reader got from a folder.

    Attributes:
        tokens: the token ids of each text.
        chat: the prompt of the chat.
        scores: what comes next after each prompt.
        chat_scores: what comes next after the prompt of the chat.
        digests: SHA-256 of each tensor's bytes, by name.
        kind: what scores are: ``logits``, or ``logprobs``.
        errors: for each part that the reader refused, its error.
        unsupported: for each part that it is not made for, which kind of folder that is.
        unavailable: for each part that its environment lacks a library for, the error.
        seconds: time that it took.
    """

    tokens: tuple[tuple[int, ...], ...] | None = None
    chat: str | None = None
    scores: tuple[Scores, ...] | None = None
    chat_scores: Scores | None = None
    digests: Mapping[str, str] | None = None
    kind: str = "logits"
    errors: Mapping[str, str] = field(default_factory=dict)
    unsupported: Mapping[str, str] = field(default_factory=dict)
    unavailable: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def has(self, part: Part) -> bool:
        """Whether the part was answered."""
        return getattr(self, part) is not None

    @classmethod
    def failed(cls, parts: Sequence[Part], error: str) -> Answer:
        """A reader that crashed or hung, asked for ``parts``."""
        return cls(errors=dict.fromkeys(parts, error))

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any], kind: str) -> Answer:
        """The answer in a program's line; a part of another form is one that it refused."""
        errors = _texts(plain.get("errors"))
        found: dict[str, Any] = {}
        for part in PARTS:
            if (value := plain.get(part)) is None:
                continue
            if _FORMS[part](value):
                found[part] = value
            else:
                errors[part] = f"the reader's program gave {quoted(value)} as {part}"
        if "tokens" in found:
            found["tokens"] = tuple(tuple(ids) for ids in found["tokens"])
        if "scores" in found:
            found["scores"] = tuple(found["scores"])
        seconds = plain.get("seconds")
        return cls(
            **found,
            kind=kind,
            errors=errors,
            unsupported=_texts(plain.get("unsupported")),
            unavailable=_texts(plain.get("unavailable")),
            seconds=float(str(seconds)) if _is_number(seconds) else 0.0,
        )


def _is_number(value: object) -> bool:
    return type(value) in (int, float)


def _are_scores(value: object) -> bool:
    if isinstance(value, Mapping):
        return all(str(key).isdecimal() and _is_number(one) for key, one in value.items())
    return isinstance(value, Sequence) and all(map(_is_number, value))


def _are_tokens(value: object) -> bool:
    return isinstance(value, Sequence) and all(
        isinstance(ids, Sequence) and all(type(one) is int for one in ids) for ids in value
    )


_FORMS: Mapping[Part, Callable[[Any], bool]] = {
    "tokens": _are_tokens,
    "chat": lambda value: isinstance(value, str),
    "scores": lambda value: isinstance(value, Sequence) and all(map(_are_scores, value)),
    "chat_scores": _are_scores,
    "digests": lambda value: bool(_texts(value) == value),
}
"""For each part, whether a value has its form."""


def _texts(value: object) -> dict[str, str]:
    """What a program gives by names; empty where it gives something else."""
    return {str(k): str(v) for k, v in value.items()} if isinstance(value, Mapping) else {}


def ask_about(folder: Path, base: Path | None = None) -> Question:
    """The question about a folder on disk.

    Args:
        folder: of a whole model, or of an adapter.
        base: the whole model that the adapter is for.

    Raises:
        NoQuestionError: the folder has no readable configuration, brings code of its own, or is an
            adapter without a base.
    """
    adapter = None
    kinds: tuple[str, ...] = ()
    if (folder / ADAPTER_CONFIG).is_file() and not (folder / CONFIG).is_file():
        if base is None:
            raise NoQuestionError(f"{folder} is an adapter; name its base model with --base")
        adapter, folder = folder, base
        kinds = _kinds(_read(adapter / ADAPTER_CONFIG))
    elif base is not None:
        raise NoQuestionError(f"--base is for adapters; {folder} is a whole model")
    config = _read(folder / CONFIG)
    places = [place for place in (adapter, folder) if place and (place / TOKENIZER).is_file()]
    tokenizer = places[0] if places else None
    for file in (config, _read(tokenizer / TOKENIZER_CONFIG) if tokenizer else {}):
        if own := [key for key in _OWN_CODE if file.get(key)]:
            raise NoQuestionError(f"{folder} brings code of its own ({own[0]}), which is not run")
    return Question(
        folder=folder,
        adapter=adapter,
        tokenizer=tokenizer,
        messages=MESSAGES if tokenizer and _has_chat(tokenizer) else (),
        prompts=_prompts(config),
        model_type=str(config.get("model_type", "")),
        kinds=kinds,
    )


def _prompts(config: Mapping[str, Any]) -> tuple[tuple[int, ...], ...]:
    """``NUMBERS`` as token ids of the model's vocabulary."""
    parts = (config, config.get("text_config"))
    sizes = [part.get("vocab_size") for part in parts if isinstance(part, dict)]
    size = next((n for n in sizes if type(n) is int and 0 < n < _MAX_VOCABULARY), None)
    if size is None:
        return ()
    return tuple(tuple(number % size for number in numbers) for numbers in NUMBERS)


def _kinds(adapter: Mapping[str, Any]) -> tuple[str, ...]:
    kinds = [str(adapter.get("peft_type", "")).lower()]
    if adapter.get("use_dora"):
        kinds[0] = "dora"
    if adapter.get("modules_to_save"):
        kinds.append("modules_to_save")
    return tuple(kinds)


def _has_chat(folder: Path) -> bool:
    return (folder / CHAT_TEMPLATE).is_file() or bool(
        _read(folder / TOKENIZER_CONFIG).get("chat_template")
    )


def _read(path: Path) -> Mapping[str, Any]:
    try:
        return read_json_object(path)
    except UnreadableJsonError as error:
        raise NoQuestionError(str(error)) from error
