"""What is different between two reports of a saver, by clause and mode.

Only what both runs checked can have broken or been fixed: a breach where the older run looked at
nothing is newly checked, and says nothing about a change.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from saver_conformance.errors import ResultError
from saver_conformance.reports.result import Clause, Evidence, Result, Row
from saver_conformance.reports.status import CellStatus
from saver_conformance.safe_text import count

Kind = Literal["broke", "deviates", "fixed", "newly checked", "no longer checked"]
KINDS: tuple[Kind, ...] = ("broke", "deviates", "fixed", "newly checked", "no longer checked")
"""In the order in which they are told."""

_State = Literal["holds", "deviates", "broken", "unchecked"]
_STATES: dict[CellStatus, _State] = {
    "pass": "holds",
    "deviation": "deviates",
    "fail": "broken",
    "waived": "broken",
}
"""What a status says about the saver; the others say that nobody looked."""


@dataclass(frozen=True, slots=True)
class Change:
    """One clause whose state is another one in some modes.

    Attributes:
        kind: what happened.
        clause: the clause, in the words of the newer spec that has it.
        modes: where.
        before: its status in these modes.
        after: its status now.
        reason: why it is not checked now; empty when it is.
        evidence: the finding of the simplest case, if it is broken now.
    """

    kind: Kind
    clause: Clause
    modes: tuple[str, ...]
    before: CellStatus
    after: CellStatus
    reason: str
    evidence: Evidence | None


@dataclass(frozen=True, slots=True)
class Changes:
    """All changes between two reports of a saver.

    Attributes:
        old: the earlier run.
        new: the later run.
        changes: in the order of ``KINDS``, then of the spec.
        notes: what else is not the same, and may be why: versions, spec, cases.
    """

    old: Result
    new: Result
    changes: tuple[Change, ...]
    notes: tuple[str, ...]

    @property
    def has_broken(self) -> bool:
        """Whether a MUST held in the old run, and is broken and not waived in the new one."""
        return any(item.kind == "broke" and item.after == "fail" for item in self.changes)

    def of(self, kind: Kind) -> tuple[Change, ...]:
        """The changes of one kind."""
        return tuple(item for item in self.changes if item.kind == kind)


@dataclass(frozen=True, slots=True)
class History:
    """What two collections of reports say about each saver.

    Attributes:
        pairs: savers that both have.
        added: results of savers that only the newer one has.
        removed: results of savers that only the older one has.
    """

    pairs: tuple[Changes, ...]
    added: tuple[Result, ...] = ()
    removed: tuple[Result, ...] = ()

    @property
    def has_broken(self) -> bool:
        """Whether something broke."""
        return any(pair.has_broken for pair in self.pairs)


def compare_collections(old: Sequence[Result], new: Sequence[Result]) -> History:
    """The changes of each saver; one report on each side is a pair whatever the savers are called.

    Raises:
        ResultError: a side has two reports of a saver, or one of a shard.
    """
    if len(old) == len(new) == 1:
        return History((compare(old[0], new[0]),))
    before, after = _by_saver(old), _by_saver(new)
    return History(
        tuple(compare(before[saver], after[saver]) for saver in after if saver in before),
        tuple(result for saver, result in after.items() if saver not in before),
        tuple(result for saver, result in before.items() if saver not in after),
    )


def compare(old: Result, new: Result) -> Changes:
    """What changed from ``old`` to ``new``.

    Raises:
        ResultError: one is of a part of a run.
    """
    for result in (old, new):
        if result.shard:
            raise ResultError(
                f"the report of {result.saver} is of shard {result.shard}; merge the shards first"
            )
    changes = sorted(_changes(old, new), key=lambda item: KINDS.index(item.kind))
    return Changes(old, new, tuple(changes), tuple(_notes(old, new)))


def _by_saver(results: Iterable[Result]) -> dict[str, Result]:
    found: dict[str, Result] = {}
    for result in results:
        if result.saver in found:
            raise ResultError(f"there are two reports of {result.saver} on one side; name one")
        found[result.saver] = result
    return found


def _changes(old: Result, new: Result) -> Iterator[Change]:
    clauses = {**old.clauses, **new.clauses}
    before = {(row.clause, row.mode): row for row in old.rows}
    after = {(row.clause, row.mode): row for row in new.rows}
    modes = dict.fromkeys((*new.modes, *old.modes))
    for name, clause in clauses.items():
        groups: dict[tuple[Kind, CellStatus, CellStatus], list[str]] = {}
        for mode in modes:
            was, now = _status(before, name, mode), _status(after, name, mode)
            if kind := _kind(_STATES.get(was, "unchecked"), _STATES.get(now, "unchecked")):
                groups.setdefault((kind, was, now), []).append(mode)
        for (kind, was, now), found in groups.items():
            rows = [after[name, mode] for mode in found if (name, mode) in after]
            yield Change(
                *(kind, clause, tuple(found), was, now),
                reason=next((row.reason for row in rows if row.reason), ""),
                evidence=next((row.evidence for row in rows if row.evidence), None),
            )


def _status(rows: dict[tuple[str, str], Row], clause: str, mode: str) -> CellStatus:
    row = rows.get((clause, mode))
    return row.status if row else "not tried"


def _kind(was: _State, now: _State) -> Kind | None:
    """What became of a clause; None when it is as it was."""
    if was == now:
        return None
    if was == "unchecked":
        return "newly checked"
    if now == "unchecked":
        return "no longer checked"
    if now == "broken":
        return "broke"
    return "deviates" if (was, now) == ("holds", "deviates") else "fixed"


def _notes(old: Result, new: Result) -> Iterator[str]:
    if old.saver != new.saver:
        yield f"savers: {old.saver} and {new.saver}"
    names = dict.fromkeys((*new.versions, *old.versions))
    versions = [
        f"{name} {old.versions.get(name, 'none')} to {new.versions.get(name, 'none')}"
        for name in names
        if old.versions.get(name) != new.versions.get(name)
    ]
    if versions:
        yield f"versions: {', '.join(versions)}"
    for what, was, now in (
        ("spec", old.spec_version, new.spec_version),
        ("profile", old.profile, new.profile),
    ):
        if was != now:
            yield f"{what}: {was or 'unknown'} to {now or 'unknown'}"
    if old.case_set != new.case_set:
        was, now = count(old.expected, "case"), count(new.expected, "case")
        yield f"cases: another set, {was} to {now}"
    for which, result in (("old", old), ("new", new)):
        if missing := result.expected - result.executed:
            yield f"the {which} run left out {count(missing, 'planned case')}"
