"""Waivers: clauses that a project knows to be broken in a mode, and why that is accepted.

A waiver stands in a TOML file under clause and mode::

    [FILES-010.full-single]
    reason = "our storage ignores file modes"
    link = "https://example.org/issues/1"

A mode may be a pattern, ``[FILES-010."lora-*"]``. A waiver is a promise to look again: one that
nothing needs any more is a failure. Where a waived clause keeps others from being checked, as a
saver that raises does, these are waived too.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from saver_conformance.cases.case import MODES, Mode
from saver_conformance.errors import WaiverFileError
from saver_conformance.safe_text import quoted
from saver_conformance.spec import SPEC
from saver_conformance.verdict.verdict import Row

_KEYS = ("reason", "link")


@dataclass(frozen=True, slots=True)
class Waiver:
    """One clause that may be broken in one mode, or in the modes of a pattern.

    Attributes:
        clause: the clause's id, as the file has it.
        mode: the mode's name or a pattern, as the file has it.
        reason: why it is accepted.
        link: where it is followed up.
    """

    clause: str
    mode: str
    reason: str
    link: str

    def covers(self, mode: Mode) -> bool:
        """Whether it is about ``mode``."""
        return mode.matches((self.mode,))

    @property
    def fault(self) -> str:
        """Why it can never match anything; empty when it can."""
        if self.clause not in SPEC:
            return f"no clause is called {self.clause}; see: saver-conformance list clauses"
        if not any(map(self.covers, MODES)):
            return f"no mode is called {self.mode}; see: saver-conformance list modes"
        return ""

    def __str__(self) -> str:
        return f"{self.clause} in {self.mode}: {self.reason} ({self.link})"


def read_waivers(path: Path) -> tuple[Waiver, ...]:
    """The waivers of the file at ``path``.

    Raises:
        WaiverFileError: it cannot be read, or a waiver lacks its reason or link, or is about a
            clause or a mode that does not exist.

    Examples:
        >>> text = '[FILES-010."lora-*"]\\nreason = "modes are ignored"\\nlink = "https://example.org"'
        >>> _ = (folder / "waivers.toml").write_text(text)
        >>> read_waivers(folder / "waivers.toml")[0].mode
        'lora-*'
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


def check_waivers(waivers: Sequence[Waiver]) -> None:
    """Look whether each of ``waivers`` is about a clause and a mode that exist.

    Raises:
        WaiverFileError: one is not.
    """
    for waiver in waivers:
        if waiver.fault:
            raise WaiverFileError(f"{waiver.fault}: {waiver}")


def pairs_of(waivers: Sequence[Waiver]) -> set[tuple[str, str]]:
    """Every clause that is waived, with the name of each mode in which it is."""
    return {(item.clause, mode.name) for item in waivers for mode in MODES if item.covers(mode)}


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
    waived = [_waive(row, waivers) for row in rows]
    judged = tuple(claimed) if every else ()
    return tuple(waived), tuple(_faults(waived, waivers, judged))


def _waive(row: Row, waivers: Sequence[Waiver]) -> Row:
    waiver = _find(waivers, row.clause, row.mode)
    if waiver and row.status in ("fail", "deviation"):
        return replace(row, status="waived", reason=f"{waiver.reason} ({waiver.link})")
    causes = [_find(waivers, clause, row.mode) for clause in row.stopped_by]
    known = [cause for cause in causes if cause]
    if row.status == "unavailable" and known and len(known) == len(causes):
        reason = f"not checked everywhere, since {known[0].clause} is broken, which is waived: "
        return replace(row, status="waived", reason=f"{reason}{known[0].reason} ({known[0].link})")
    return row


def _find(waivers: Sequence[Waiver], clause: str, mode: Mode) -> Waiver | None:
    """The first waiver of ``clause`` that covers ``mode``."""
    return next((item for item in waivers if item.clause == clause and item.covers(mode)), None)


def _faults(
    rows: Sequence[Row], waivers: Sequence[Waiver], claimed: Sequence[Mode]
) -> Iterator[str]:
    for waiver in waivers:
        if waiver.fault:
            yield f"{waiver.fault}: {waiver}"
            continue
        if not any(map(waiver.covers, claimed)):
            continue
        statuses = {
            row.status
            for row in rows
            if row.clause == waiver.clause and row.mode in claimed and waiver.covers(row.mode)
        }
        if not statuses:
            yield f"no case demands the waived clause: {waiver}"
        elif statuses == {"pass"}:
            yield f"the waived clause holds, remove the waiver: {waiver}"


def _items(path: Path, clause: str, modes: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(modes, dict):
        raise WaiverFileError(f"{path}: expected a table [{clause}.MODE], found {quoted(modes)}")
    yield from modes.items()


def _parse(path: Path, clause: str, mode: str, entry: Any) -> Waiver:
    where = f"{path}: [{clause}.{mode}]"
    if not isinstance(entry, dict):
        raise WaiverFileError(
            f"{path}: [{clause}] {mode}: expected a table of a mode, such as "
            f'[{clause}.full-single] or [{clause}."lora-*"], found {quoted(entry)}'
        )
    if missing := [key for key in _KEYS if key not in entry]:
        raise WaiverFileError(f"{where} has no {' and no '.join(missing)}")
    if unknown := [key for key in entry if key not in _KEYS]:
        raise WaiverFileError(
            f"{where}: unknown keys {', '.join(unknown)}; expected {' and '.join(_KEYS)}"
        )
    for key, value in entry.items():
        if not isinstance(value, str) or not value.strip():
            raise WaiverFileError(f"{where}: {key}: expected text, found {quoted(value)}")
    waiver = Waiver(clause, mode, entry["reason"], entry["link"])
    if waiver.fault:
        raise WaiverFileError(f"{where}: {waiver.fault}")
    return waiver
