"""What a program that serves models made of a saved folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

PLAIN = "plain"
"""The folder, in a case's own, of a plain save of what the case trained."""
BASE = "plain-base"
"""The folder of the base model that its adapter is for, with the tokenizer next to it."""
ASKED = "asked.json"
"""The file that says what readers are asked."""
RIGHT = "right.json"
"""The file that says what is right, by the training's own objects."""

Outcome = Literal["right", "wrong", "refused", "not read", "not compared", "unavailable"]
"""``right``: as the standard; ``wrong``: it answers, and differs without a word; ``refused``: it
fails; ``not read``: it is not made for such folders; ``not compared``: there is no standard;
``unavailable``: the reader cannot run here, or lacks a library for it."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of what a reader made of a folder.

    Attributes:
        name: ``tokens``, ``chat``, ``scores``, ``chat_scores`` or ``digests``.
        outcome: how it compares.
        expected: what was expected; empty where nothing differs.
        found: what was found, or the reader's error.
        difference: the largest difference of scores, in units of the scores.
    """

    name: str
    outcome: Outcome
    expected: str = ""
    found: str = ""
    difference: float | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """What one reader made of one folder.

    Attributes:
        reader: its name.
        parts: part by part; empty where the reader is unavailable.
        unavailable: why the reader cannot run here; empty where it ran.
        versions: the versions of its libraries, as name and version.
        seconds: time that it took, without its start.
    """

    reader: str
    parts: tuple[Part, ...] = ()
    unavailable: str = ""
    versions: tuple[tuple[str, str], ...] = ()
    seconds: float = 0.0

    @property
    def outcome(self) -> Outcome:
        """The worst of its parts, which is what a user of the reader gets."""
        if self.unavailable:
            return "unavailable"
        order: tuple[Outcome, ...] = ("wrong", "refused", "unavailable", "right", "not compared")
        outcomes = {part.outcome for part in self.parts}
        return next((outcome for outcome in order if outcome in outcomes), "not read")

    def why_unavailable(self, *names: str) -> str:
        """Why the reader does not tell one of the parts, of all where none is named; else empty."""
        lacking = (part for part in self.parts if part.outcome == "unavailable")
        told = (part.found for part in lacking if not names or part.name in names)
        return self.unavailable or next(told, "")

    @property
    def is_fine(self) -> bool:
        """Whether the reader is neither wrong nor refuses."""
        return self.outcome not in ("wrong", "refused")


@dataclass(frozen=True, slots=True)
class Comparison:
    """What one reader made of the saver's folder, and of a plain save of the same model.

    Attributes:
        saved: of the saver's folder.
        plain: of what ``save_pretrained`` writes for the same model and tokenizer.
    """

    saved: Reading
    plain: Reading

    def faults(self) -> tuple[tuple[Part, bool], ...]:
        """Each part that is wrong or refused, and whether it is so of the plain save as well.

        A reader that gets a part right of the plain save is made for such folders. That it takes
        the saver's for another kind is a refusal.
        """
        plain = {part.name: part.outcome for part in self.plain.parts}
        found = ((_as_fault(part, plain.get(part.name)), part.name) for part in self.saved.parts)
        return tuple((fault, plain.get(name) != "right") for fault, name in found if fault)


def _as_fault(part: Part, plain: Outcome | None) -> Part | None:
    if part.outcome == "not read" and plain == "right":
        return replace(part, outcome="refused", expected="an answer")
    return part if part.outcome in ("wrong", "refused") else None
