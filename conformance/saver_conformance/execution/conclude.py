"""From what became of the cases to the verdict of a run, or of one part of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from saver_conformance import checks
from saver_conformance.cases.case import MODES, Case, Mode
from saver_conformance.cases.coverage import measure
from saver_conformance.cases.shards import Shard
from saver_conformance.spec import SPEC
from saver_conformance.verdict.causes import FailureCause, learn
from saver_conformance.verdict.part import Part
from saver_conformance.verdict.verdict import CaseRecord, Pace, Row, Verdict, aggregate
from saver_conformance.verdict.waivers import Waiver, apply


@dataclass(frozen=True, slots=True)
class Terms:
    """What a run is about, whatever comes out.

    Attributes:
        saver: the saver's address or name, as it was given.
        address: from where it is imported.
        profile: name of the profile.
        modes: the claimed modes.
        without: patterns of the clauses that the saver has no part in.
        waivers: clauses that are known to be broken.
        case_set: the name of the set of planned cases; empty where nothing is planned.
        shard: the part of the plan that was run; None for the whole.
    """

    saver: str
    address: str
    profile: str
    modes: tuple[Mode, ...]
    without: tuple[str, ...] = ()
    waivers: tuple[Waiver, ...] = ()
    case_set: str = ""
    shard: Shard | None = None

    def leaves_out(self, clause: str) -> bool:
        """Whether the saver has no part in ``clause``."""
        return any(fnmatchcase(clause, pattern) for pattern in self.without)


def conclude(
    terms: Terms,
    records: tuple[CaseRecord, ...],
    paces: tuple[Pace, ...],
    seconds: float,
    *,
    smallest: Case | None = None,
    interrupted: bool = False,
) -> Verdict:
    """The verdict about ``records``.

    Args:
        terms: what the run was about.
        records: what became of every planned case, in the order of the plan.
        paces: speed by engine.
        seconds: duration.
        smallest: the case that ``explore`` shrank a broken MUST to.
        interrupted: whether the run was ended before every planned case was run.
    """
    levels = {check.clause: SPEC[check.clause].level for check in checks.checks()}
    applies = {
        clause: tuple(mode for mode in MODES if mode.matches(SPEC[clause].modes))
        for clause in levels
    }
    # Neither a few cases nor one part of them tell whether a waiver is needed no more.
    every = terms.profile not in ("explore", "replay") and not interrupted and not terms.shard
    modes = terms.modes
    if terms.shard is not None:
        own = {record.case.mode for record in records}
        modes = tuple(mode for mode in terms.modes if mode in own)
    run = [record.case for record in records if record.status == "run"]
    rows = tuple(
        Row(row.clause, row.mode, "not claimed") if terms.leaves_out(row.clause) else row
        for row in aggregate(records, modes, levels, applies)
        # The modes of other parts are claimed, and this part says nothing about them.
        if row.mode in modes or row.mode not in terms.modes
    )
    rows, faults = apply(rows, terms.waivers, modes, every=every)
    across = terms.profile == "nightly"
    return Verdict(
        saver=terms.saver,
        profile=terms.profile,
        modes=modes,
        rows=rows,
        records=records,
        levels=levels,
        seconds=seconds,
        paces=paces,
        smallest=smallest,
        waiver_faults=faults,
        pairs=None if terms.profile == "replay" else measure(modes, run, across=across),
        failures=_learn(records),
        interrupted=interrupted,
        address=terms.address,
        case_set=terms.case_set,
        part=Part(terms.shard, terms.modes, terms.without, terms.waivers) if terms.shard else None,
    )


def _learn(records: Sequence[CaseRecord]) -> tuple[FailureCause, ...]:
    """The causes for which saves failed."""
    failures = [record.failure for record in records if record.failure is not None]
    run = [record for record in records if record.status == "run" and record.failure is None]
    return learn(failures, [case for record in run for case in record.case.saves()])
