"""Compares what readers answer with a standard."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from saver_conformance.folder.layout import read_weights
from saver_conformance.folder.safetensors import read_tensor
from saver_conformance.observation.reading import Outcome, Part, Reading
from saver_conformance.readers.question import Answer, Scores
from saver_conformance.readers.reader import PARTS, Reader
from saver_conformance.safe_text import printable, quoted

LIBRARY = (
    "AutoTokenizer puts a pre-tokenizer of its own in the place of the folder's for this model "
    "type; tokenizer.json by itself makes other tokens, which no saver can change"
)
"""Why the token ids of readers that build on ``transformers`` are not those of the file."""
OF_TOKENS = ("tokens", "chat_scores")
"""The parts that hang on the token ids of texts."""
_SHOWN = 400
"""Characters of an error that are kept."""


@dataclass(frozen=True, slots=True)
class Standard:
    """What is right, and who says so; a part that nobody knows is None.

    Attributes:
        answer: the right answers; scores are logits in float32.
        origin: for each part, who says so.
        library_tokens: the token ids that the newest ``AutoTokenizer`` makes, which for some types
            of models puts a pre-tokenizer of its own in the place of the folder's; None where that
            is not known.
    """

    answer: Answer
    origin: Mapping[str, str]
    library_tokens: Sequence[Sequence[int]] | None = None


def judge(
    reader: Reader, answer: Answer, standard: Standard, versions: Mapping[str, str]
) -> Reading:
    """What ``reader`` made of the folder that it answered about."""
    parts = []
    for name in PARTS:
        if name in answer.unsupported:
            parts.append(Part(name, "not read", found=printable(answer.unsupported[name])[:_SHOWN]))
        elif name in answer.unavailable:
            why = printable(answer.unavailable[name])[:_SHOWN]
            parts.append(Part(name, "unavailable", found=why))
        elif name in answer.errors:
            expected = f"{name} as by {standard.origin.get(name, 'nobody')}"
            parts.append(Part(name, "refused", expected, printable(answer.errors[name])[:_SHOWN]))
        elif answer.has(name):
            part = _compare(name, answer, standard, reader.tolerance)
            if part.outcome == "wrong" and name in OF_TOKENS and _as_library(answer, standard):
                part = Part(name, "not compared", found=LIBRARY)
            parts.append(part)
    return Reading(
        reader.name, tuple(parts), versions=tuple(versions.items()), seconds=answer.seconds
    )


def _as_library(answer: Answer, standard: Standard) -> bool:
    """Whether the tokens are those that ``AutoTokenizer`` makes, and not those of the file."""
    library = standard.library_tokens
    return library is not None and answer.tokens == library != standard.answer.tokens


def digests_of(folder: Path) -> dict[str, str]:
    """SHA-256 of each tensor's bytes, by name, in the layout that loaders take first."""
    saved = read_weights(folder)
    files = saved.layouts.get("single") or saved.layouts.get("sharded", ())
    return {
        name: hashlib.sha256(read_tensor(folder / file, header, name).data).hexdigest()
        for file, header in saved.headers.items()
        if file in files
        for name in header.tensors
    }


def _compare(name: str, answer: Answer, standard: Standard, tolerance: float) -> Part:
    right, found = getattr(standard.answer, name), getattr(answer, name)
    if right is None:
        return Part(name, "not compared", found="nothing says what is right")
    if name == "tokens":
        return _tokens(right, found)
    if name == "chat":
        same = right == found
        return _part(name, same, quoted(right), quoted(found))
    if name == "digests":
        return _digests(right, found)
    rights, founds = ((right,), (found,)) if name == "chat_scores" else (right, found)
    return _scores(name, rights, founds, answer.kind, tolerance)


def _part(name: str, same: bool, expected: str, found: str) -> Part:
    outcome: Outcome = "right" if same else "wrong"
    return Part(name, outcome) if same else Part(name, outcome, expected, found)


def _tokens(right: Sequence[Sequence[int]], found: Sequence[Sequence[int]]) -> Part:
    for wanted, got in zip(right, found, strict=False):
        if list(wanted) != list(got):
            return Part("tokens", "wrong", quoted(list(wanted)), quoted(list(got)))
    same = len(right) == len(found)
    return _part("tokens", same, f"{len(right)} texts", f"{len(found)} texts")


def _digests(right: Mapping[str, str], found: Mapping[str, str]) -> Part:
    for name in (*right, *found):
        if right.get(name) != found.get(name):
            expected = right.get(name, "no such tensor")
            return Part(
                "digests", "wrong", f"{name}: {expected}", found.get(name, "no such tensor")
            )
    return Part("digests", "right")


def _scores(
    name: str, right: Sequence[Scores], found: Sequence[Scores], kind: str, tolerance: float
) -> Part:
    if len(right) != len(found):
        return Part(name, "wrong", f"{len(right)} prompts", f"{len(found)} prompts")
    largest = 0.0
    for wanted, got in zip(right, found, strict=True):
        assert not isinstance(wanted, Mapping)  # the standard knows every token
        if not all(map(math.isfinite, wanted)):
            return Part(name, "not compared", found="the right scores are not finite")
        if kind == "logprobs":
            wanted = _log_softmax(wanted)
        pairs = got.items() if isinstance(got, Mapping) else enumerate(got)
        numbers = {int(token): float(score) for token, score in pairs}
        if not numbers or not all(0 <= token < len(wanted) for token in numbers):
            return Part(name, "wrong", f"scores of {len(wanted)} tokens", f"of {len(numbers)}")
        if not isinstance(got, Mapping) and len(numbers) != len(wanted):
            return Part(name, "wrong", f"scores of {len(wanted)} tokens", f"of {len(numbers)}")
        for token, score in numbers.items():
            distance = abs(score - wanted[token])
            largest = max(largest, distance if math.isfinite(distance) else math.inf)
    if largest <= tolerance:
        return Part(name, "right", difference=largest)
    return Part(
        name,
        "wrong",
        f"{kind} within {tolerance:g} of the right ones",
        f"they differ by up to {largest:.3g}",
        largest,
    )


def _log_softmax(scores: Sequence[float]) -> list[float]:
    top = max(scores)
    total = top + math.log(math.fsum(math.exp(score - top) for score in scores))
    return [score - total for score in scores]
