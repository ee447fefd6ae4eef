"""How a run tells what it is doing."""

from __future__ import annotations

from typing import Protocol

from saver_conformance.cases.case import Case
from saver_conformance.verdict.verdict import CaseRecord


class Progress(Protocol):
    """Who is told how a run goes on."""

    def plan(self, cases: int) -> None:
        """Hear how many cases are planned; 0 when there is no end."""

    def train(self, case: Case) -> None:
        """Hear that ``case`` is about to be trained."""

    def finish(self, record: CaseRecord) -> None:
        """Hear that a case is done."""

    def note(self, text: str) -> None:
        """Hear what the run waits for, in a line of words."""


class Silent:
    """Nobody is told."""

    def plan(self, cases: int) -> None:
        """Ignore it."""

    def train(self, case: Case) -> None:
        """Ignore it."""

    def finish(self, record: CaseRecord) -> None:
        """Ignore it."""

    def note(self, text: str) -> None:
        """Ignore it."""
