"""What a reader's program needs to answer questions; the standard library is enough for it.

A program runs in the reader's own environment, with this module on its path::

    from reader_worker import Folder, serve


    class Reading(Folder):
        def tokens(self, texts): ...


    serve(Reading, {"tokenizers": tokenizers.__version__})

``serve`` makes one ``Reading`` for each folder. It answers with what the methods return whose
names are in ``PARTS``; a method that is not there is a part that the reader does not give. An
exception is the reader's refusal of that part; ``Unsupported`` says that it is not made for such a
folder, and an ``ImportError`` that its environment lacks a library, which is no word about the
folder.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

PARTS: Mapping[str, str] = {
    "tokens": "texts",
    "chat": "messages",
    "scores": "prompts",
    "chat_scores": "messages",
    "digests": "",
}
"""The methods that are asked for, each with the part of the question that it is called with.

``tokens(texts)``: for each text its token ids, without special tokens.
``chat(messages)``: the text of the prompt that the chat template makes, open for an answer.
``scores(prompts)``: for each list of token ids what comes next: a number for each token, or a
mapping of some tokens' ids to numbers.
``chat_scores(messages)``: the same after the prompt of a chat.
``digests()``: the SHA-256 of each tensor's bytes, by its name.
"""

MAX_ERROR = 2000


class Unsupported(Exception):  # noqa: N818 - a status, as in the report
    """The reader is not made for folders of this kind; the message says which."""


class Folder:
    """One folder, and what is asked about it.

    Attributes:
        folder: the folder of the whole model.
        adapter: the folder of the adapter on top of it; empty for none.
        tokenizer: the folder of the tokenizer's files.
    """

    KIND: ClassVar[str] = "logits"
    """What the scores are: ``logits``, or ``logprobs``, their logarithm of a softmax."""

    def __init__(self, question: Mapping[str, Any]) -> None:
        self.folder: str = question["folder"]
        self.adapter: str = question["adapter"]
        self.tokenizer: str = question["tokenizer"]

    def close(self) -> None:
        """Free what the reading holds."""


def serve(reading: type[Folder], versions: Mapping[str, str]) -> None:
    """Answer the questions on standard input, a JSON object a line, until it ends.

    Args:
        reading: made for each folder.
        versions: the versions of the libraries that read.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries print to standard output, which is for answers
    _write(answers, {"versions": dict(versions), "kind": reading.KIND})
    for line in sys.stdin:
        _write(answers, _answer(reading, json.loads(line)))


def _answer(reading: type[Folder], question: Mapping[str, Any]) -> dict[str, Any]:
    started = time.monotonic()
    answer: dict[str, Any] = {"errors": {}, "unsupported": {}, "unavailable": {}}
    try:
        one = reading(question)
    except Exception as error:
        _refuse(answer, [part for part in PARTS if hasattr(reading, part)], error)
    else:
        for part, argument in PARTS.items():
            if not hasattr(one, part) or (argument and not question[argument]):
                continue
            try:
                method = getattr(one, part)
                answer[part] = method(question[argument]) if argument else method()
            except Exception as error:
                _refuse(answer, [part], error)
        one.close()
    return answer | {"seconds": time.monotonic() - started}


def _refuse(answer: dict[str, Any], parts: Sequence[str], error: Exception) -> None:
    kind, text = "errors", f"{type(error).__name__}: {error}"
    if isinstance(error, Unsupported):
        kind, text = "unsupported", str(error)
    # A failed import leaves modules half made, so that what fails after it may fail for it.
    elif answer["unavailable"] or _lacks_a_library(error):
        kind = "unavailable"
    answer[kind].update(dict.fromkeys(parts, text.strip()[:MAX_ERROR]))


def _lacks_a_library(error: BaseException | None) -> bool:
    """Whether an import failed, or the library says that its error comes from one that did."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        if isinstance(error, ImportError):
            return True
        seen.append(error)
        error = error.__cause__
    return False


def _write(answers: Any, plain: Mapping[str, Any]) -> None:
    answers.write(json.dumps(plain) + "\n")
    answers.flush()
