"""Waivers: clauses that a project knows to be broken in a mode, and why that is accepted.

A waiver stands in a TOML file under clause and mode::

    [FILES-010.full-single]
    reason = "our storage ignores file modes"
    link = "https://example.org/issues/1"

It is a promise to look again: one that nothing needs any more is a failure. Where a waived clause
keeps others from being checked, as a saver that raises does, these are waived too.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from saver_conformance.case import MODES, Mode
from saver_conformance.spec import SPEC
from saver_conformance.verdict import Row


@dataclass(frozen=True, slots=True)
class Waiver:
    """One clause that may be broken in one mode.

    Attributes:
        clause: the clause's id, as the file has it.
        mode: the mode's name, as the file has it.
        reason: why it is accepted.
        link: where it is followed up.
    """

    clause: str
    mode: str
    reason: str
    link: str

    def __str__(self) -> str:
        return f"{self.clause} in {self.mode}: {self.reason} ({self.link})"


class WaiverFileError(Exception):
    """A file of waivers does not have the form that this module describes."""


def read_waivers(path: Path) -> tuple[Waiver, ...]:
    """The waivers of the file at ``path``.

    Raises:
        WaiverFileError: it cannot be read, or a waiver lacks its reason or link.
    """
    try:
        plain = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WaiverFileError(f"{path} cannot be read: {error}") from error
    return tuple(
        _parse(path, clause, mode, entry)
        for clause, modes in plain.items()
        for mode, entry in _items(path, clause, modes)
    )


def apply(
    rows: Sequence[Row], waivers: Sequence[Waiver], claimed: Sequence[Mode], *, every: bool = True
) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """The rows with what is waived, and what is wrong with the waivers.

    A waiver for a mode that is not claimed is left for a run that claims it.

    Args:
        rows: what came out for every clause and mode.
        waivers: what is waived.
        claimed: the modes that were run.
        every: whether every case of a plan was run; a waiver that a few cases do not need is not
            wrong for that.
    """
    by_key = {(waiver.clause, waiver.mode): waiver for waiver in waivers}
    waived = [_waive(row, by_key) for row in rows]
    judged = {mode.name for mode in claimed} if every else set()
    return tuple(waived), tuple(_faults(waived, waivers, judged))


def _waive(row: Row, waivers: Mapping[tuple[str, str], Waiver]) -> Row:
    waiver = waivers.get((row.clause, row.mode.name))
    if waiver and row.status in ("fail", "deviation"):
        return replace(row, status="waived", reason=f"{waiver.reason} ({waiver.link})")
    causes = [waivers.get((clause, row.mode.name)) for clause in row.stopped_by]
    known = [cause for cause in causes if cause]
    if row.status == "unavailable" and known and len(known) == len(causes):
        reason = f"not checked everywhere, since {known[0].clause} is broken, which is waived: "
        return replace(row, status="waived", reason=f"{reason}{known[0].reason} ({known[0].link})")
    return row


def _faults(rows: Sequence[Row], waivers: Sequence[Waiver], claimed: set[str]) -> Iterator[str]:
    statuses = {(row.clause, row.mode.name): row.status for row in rows}
    for waiver in waivers:
        if waiver.clause not in SPEC:
            yield f"no clause is called {waiver.clause}: {waiver}"
        elif waiver.mode not in {mode.name for mode in MODES}:
            yield f"no mode is called {waiver.mode}: {waiver}"
        elif waiver.mode in claimed:
            status = statuses.get((waiver.clause, waiver.mode))
            if status is None:
                yield f"no case demands the waived clause: {waiver}"
            elif status == "pass":
                yield f"the waived clause holds, remove the waiver: {waiver}"


def _items(path: Path, clause: str, modes: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(modes, dict):
        raise WaiverFileError(f"{path}: expected a table [{clause}.MODE], found {modes!r}")
    yield from modes.items()


def _parse(path: Path, clause: str, mode: str, entry: Any) -> Waiver:
    if not isinstance(entry, dict) or set(entry) != {"reason", "link"}:
        raise WaiverFileError(f"{path}: [{clause}.{mode}] needs reason and link, and nothing else")
    for key, value in entry.items():
        if not isinstance(value, str) or not value.strip():
            raise WaiverFileError(f"{path}: the {key} of [{clause}.{mode}] is empty")
    return Waiver(clause, mode, entry["reason"], entry["link"])
