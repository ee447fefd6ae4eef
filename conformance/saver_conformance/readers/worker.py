"""A reader's process, which answers about one folder after the other.

A process that ends, or does not answer in time, is the folder's error; the next folder gets a new
one.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from saver_conformance.readers.environment import (
    EnvironmentUnavailableError,
    command_of,
    place_of,
    variables_of,
)
from saver_conformance.readers.question import Answer, Question
from saver_conformance.readers.reader import Part, Reader

START_LIMIT = 300.0
"""Seconds that a program may take to import its libraries."""
LOG_TAIL = 1000
"""Characters of a program's output that go with its failure."""
_PATH = Path(__file__).parent / "worker_path"
_VARIABLES = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "PYTHONNOUSERSITE": "1",
    "PYTHONPATH": str(_PATH),
}


class Worker:
    """The process of one reader; one thread at a time may ask it.

    Attributes:
        reader: the reader.
        versions: the versions of its libraries, once it has started.
    """

    def __init__(self, reader: Reader) -> None:
        """Nothing is started before the first question."""
        self.reader = reader
        self.versions: Mapping[str, str] = {}
        self._kind = "logits"
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._log = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._log.close()

    def ask(self, question: Question) -> Answer:
        """The reader's answer.

        Raises:
            EnvironmentUnavailableError: the reader cannot run here.
        """
        parts = self._parts(question)
        if isinstance(parts, Answer):
            return parts
        with self._lock:
            if self._process is None:
                self._start()
            assert self._process is not None
            assert self._process.stdin is not None
            with contextlib.suppress(OSError):  # it has ended; the missing answer tells
                self._process.stdin.write(json.dumps(question.as_plain()) + "\n")
                self._process.stdin.flush()
            plain = self._receive(self.reader.limit)
            if plain is None:
                return Answer.failed(parts, self._end(self.reader.limit))
            answer = Answer.from_plain(plain, self._kind)
            if answer.unavailable:  # the failed import is not to show in the next folder
                self.stop()
        return answer

    def _parts(self, question: Question) -> tuple[Part, ...] | Answer:
        """What the reader is asked for, or why it is not asked."""
        reader = self.reader
        parts = tuple(part for part in reader.gives if part in _askable(question))
        why = ""
        if reader.models and question.model_type not in reader.models:
            why = f"the reader has no {question.model_type}"
        if strange := [kind for kind in question.kinds if kind not in reader.adapters]:
            why = f"the reader has no adapters of the kind {strange[0]}; merge it first"
        about_weights = tuple(part for part in parts if part not in ("tokens", "chat"))
        if why and about_weights == parts:
            return Answer(unsupported=dict.fromkeys(parts, why))
        return parts

    def stop(self) -> None:
        """End the process and what it has started."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _start(self) -> None:
        """Start the process.

        Raises:
            EnvironmentUnavailableError: it does not come up.
        """
        inherited = {key: value for key, value in os.environ.items() if key != "PYTHONHOME"}
        own = dict(self.reader.variables)
        self._log.seek(0)
        self._log.truncate()
        try:
            self._process = subprocess.Popen(
                command_of(self.reader),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                encoding="utf-8",
                errors="replace",
                env=inherited | _VARIABLES | dict(variables_of(self.reader)) | own,
                start_new_session=True,
            )
        except OSError as error:  # its interpreter is gone, say
            again = f"remove {place_of(self.reader)} and install it again"
            raise EnvironmentUnavailableError(f"it does not start: {error}; {again}") from error
        self._lines = queue.SimpleQueue()
        arguments = (self._process, self._lines)
        threading.Thread(target=_listen, args=arguments, daemon=True).start()
        greeting = self._receive(START_LIMIT)
        if greeting is None:
            raise EnvironmentUnavailableError(f"it does not start: {self._end(START_LIMIT)}")
        versions = greeting.get("versions")
        self.versions = versions if isinstance(versions, dict) else {}
        self._kind = "logprobs" if greeting.get("kind") == "logprobs" else "logits"

    def _receive(self, limit: float) -> dict[str, Any] | None:
        """The next object of the process; None when it has ended or does not answer in time.

        What libraries print between is no answer.
        """
        end = time.monotonic() + limit
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                return None
            if not line:
                return None
            with contextlib.suppress(ValueError, RecursionError):
                if isinstance(found := json.loads(line), dict):
                    return found

    def _end(self, limit: float) -> str:
        """End the process; how it ended."""
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.5)
        code = self._process.poll()
        self.stop()
        self._log.seek(0)
        said = self._log.read()[-LOG_TAIL:].strip()
        ended = f"no answer in {limit:g} s" if code is None else f"the reader ended with {code}"
        return f"{ended}: {said}" if said else ended


def _askable(question: Question) -> tuple[Part, ...]:
    parts: tuple[Part, ...] = ("digests",) if question.adapter is None else ()
    if question.tokenizer:
        parts += ("tokens",)
    if question.tokenizer and question.messages:
        parts += ("chat", "chat_scores")
    return (*parts, "scores") if question.prompts else parts


def _listen(process: subprocess.Popen[str], lines: queue.SimpleQueue[str]) -> None:
    """Pass on what the process says, line by line, and an empty line at its end."""
    assert process.stdout is not None
    with contextlib.suppress(ValueError, OSError):
        for line in process.stdout:
            lines.put(line)
    lines.put("")
