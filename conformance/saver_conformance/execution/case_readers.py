"""Has the folders of some cases read by the programs that serve models, beside a plain save.

Of each family and method one case is enough: what readers make of a folder depends on these, and
the bits are checked in every case without them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from saver_conformance.cases.case import Case
from saver_conformance.execution.saved_case import SavedCase
from saver_conformance.observation.reading import ASKED, BASE, PLAIN, RIGHT, Comparison, Reading
from saver_conformance.processes.reloader import Reloader
from saver_conformance.readers.judgement import Standard, digests_of
from saver_conformance.readers.question import (
    MESSAGES,
    NUMBERS,
    TEXTS,
    Answer,
    NoQuestionError,
    Question,
    ask_about,
)
from saver_conformance.readers.reader import PARTS, Reader
from saver_conformance.readers.session import Session

_TRAINING: Mapping[str, str] = {part: "the training's own objects" for part in PARTS}


class CaseReaders:
    """Readers, and the cases whose folders they read; thread-safe."""

    def __init__(self, readers: Sequence[Reader], planned: Iterable[Case]) -> None:
        """Read the folders of some of the ``planned`` cases; no process is started yet."""
        self._session = Session(readers)
        self.cases = choose_cases(planned) if readers else frozenset()

    def stop(self) -> None:
        """End the readers' processes."""
        self._session.stop()

    def compare(self, saved: SavedCase, reloader: Reloader) -> tuple[Comparison, ...]:
        """What readers make of the saved folder and of a plain save of the same model.

        Raises:
            HarnessFailedError: the plain save could not be made.
        """
        asked = {"texts": TEXTS, "messages": MESSAGES, "numbers": NUMBERS}
        (saved.folder / ASKED).write_text(json.dumps(asked))
        reloader.save_plainly(saved.case, saved.folder)
        right = json.loads((saved.folder / RIGHT).read_text())
        base = saved.folder / BASE if saved.case.mode.is_adapter else None
        plain = ask_about(saved.folder / PLAIN, base)
        readings = self._read(plain, right)
        try:
            question = ask_about(saved.folder / "out", base)
        except NoQuestionError as error:
            mine: tuple[Reading, ...] = tuple(
                replace(
                    one,
                    parts=tuple(replace(p, outcome="refused", found=str(error)) for p in one.parts),
                )
                for one in readings
            )
        else:
            # Asked the same, whatever the saved files say.
            same = replace(question, prompts=plain.prompts, messages=plain.messages)
            mine = self._read(same, right)
        return tuple(Comparison(*pair) for pair in zip(mine, readings, strict=True))

    def _read(self, question: Question, right: dict[str, object]) -> tuple[Reading, ...]:
        answer = Answer.from_plain(right, "logits")
        if question.adapter is None:
            answer = replace(answer, digests=digests_of(question.folder))
        return self._session.read(question, Standard(answer, _TRAINING))


def choose_cases(planned: Iterable[Case]) -> frozenset[Case]:
    """One case of each family and method, with a chat template where there is one."""
    chosen: dict[tuple[str, str], Case] = {}
    for case in sorted(filter(_can_be_read, planned), key=lambda case: case.tokenizer != "chat"):
        chosen.setdefault((case.mode.method, case.architecture), case)
    return frozenset(chosen.values())


def _can_be_read(case: Case) -> bool:
    """Whether readers can tell a right folder of the case from a wrong one."""
    family = case.family
    is_known = not (family.module or family.code or case.class_name)
    is_plain = family.auto == "AutoModelForCausalLM" and is_known
    is_whole = case.tie == "declared" and case.dtype != "mixed" and not case.special_values
    is_alone = case.after is None and case.probe == "none"
    is_usual = case.result == "trained" and not case.base_bits
    if not (is_plain and is_whole and is_alone and is_usual):
        return False
    if case.adapter is None:
        return True
    # A base that was resized in memory is in no folder.
    return case.adapter.names == ("default",) and case.vocabulary == "same"
