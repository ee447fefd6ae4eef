"""Has folders read by several readers, each of which keeps its process from the first to the last.

A reader that cannot run here is unavailable for every folder, with its reason.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Self

from saver_conformance.observation.reading import Reading
from saver_conformance.readers.environment import EnvironmentUnavailableError
from saver_conformance.readers.judgement import Standard, digests_of, judge
from saver_conformance.readers.question import Answer, Question, Scores
from saver_conformance.readers.reader import Reader
from saver_conformance.readers.registry import find_readers
from saver_conformance.readers.worker import Worker

ARITHMETIC = "transformers"
"""The reader whose float32 scores are right where no training is at hand."""
TOKENS = "tokenizers"
"""The reader that takes the tokenizer's file as it is."""
ITS_FILE = "the folder's tokenizer.json as it is"


class Session:
    """Readers that have been started, and what they cannot do here; thread-safe by reader."""

    def __init__(self, readers: Sequence[Reader]) -> None:
        """Read with ``readers``; each is started when the first folder comes."""
        self.readers = tuple(readers)
        self._workers: dict[str, Worker] = {}
        self._unavailable: dict[str, str] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the readers' processes."""
        with self._lock:
            workers = tuple(self._workers.values())
        for worker in workers:
            worker.__exit__()

    def ask(self, reader: Reader, question: Question) -> Answer | str:
        """The reader's answer, or why it cannot run here."""
        if why := self._unavailable.get(reader.name):
            return why
        with self._lock:
            worker = self._workers.setdefault(reader.name, Worker(reader))
        try:
            return worker.ask(question)
        except EnvironmentUnavailableError as error:
            self._unavailable[reader.name] = str(error)
            return str(error)

    def read(self, question: Question, standard: Standard) -> tuple[Reading, ...]:
        """What each reader makes of the folder, compared with ``standard``."""
        readings = []
        for reader in self.readers:
            answer = self.ask(reader, question)
            if isinstance(answer, str):
                readings.append(Reading(reader.name, unavailable=answer))
            else:
                versions = self._workers[reader.name].versions
                readings.append(judge(reader, answer, standard, versions))
        return tuple(readings)

    def _scores_after(
        self, reader: Reader, question: Question, ids: tuple[int, ...]
    ) -> Scores | None:
        """What comes next after the file's own tokens of a chat, which the library changes."""
        if not ids or not question.prompts:
            return None
        answer = self.ask(reader, replace(question, tokenizer=None, prompts=(ids,)))
        return answer.scores[0] if isinstance(answer, Answer) and answer.scores else None

    def standard_of(self, question: Question) -> Standard:
        """What is right of a folder by itself, as far as the readers for that are here.

        Its tokens are those of its ``tokenizer.json``, its scores those of the newest
        ``transformers`` in float32, and its tensors what the suite's own parser reads.
        """
        known = {**find_readers(), **{reader.name: reader for reader in self.readers}}
        right, origin, library = Answer(), dict[str, str](), None
        answer = self.ask(known[ARITHMETIC], question)
        if isinstance(answer, Answer):
            right = replace(answer, tokens=None, errors={}, unsupported={}, unavailable={})
            library = answer.tokens
            told = "the newest transformers in float32"
            origin |= dict.fromkeys(("scores", "chat_scores", "chat"), told)
        asked = question if right.chat is None else question.with_text(right.chat)
        answer = self.ask(known[TOKENS], asked)
        if isinstance(answer, Answer) and answer.tokens is not None:
            count = len(question.texts)
            right, origin["tokens"] = replace(right, tokens=answer.tokens[:count]), ITS_FILE
            if library != right.tokens and right.chat is not None:
                scores = self._scores_after(known[ARITHMETIC], question, answer.tokens[count])
                right = replace(right, chat_scores=scores)
        if question.adapter is None and (digests := digests_of(question.folder)):
            right = replace(right, digests=digests)
            origin["digests"] = "the files' own headers"
        return Standard(right, origin, library)
