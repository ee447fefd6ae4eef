"""Statuses and verdicts in words; the same words on every page."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from saver_conformance.reports.result import Clause, Result, Row
from saver_conformance.safe_text import count
from saver_conformance.verdict.verdict import BROKEN, CONFORMS, HARNESS_FAILED, INCONCLUSIVE, Status

CellStatus = Status | Literal["not tried", "no demand"]
"""A status, or why there is none: no case of the profile asks for it, or no clause does."""

Folder = Literal["any", "empty", "used"]
"""What lay in the output folder before the saves that a matrix is about."""

_TABLE: tuple[tuple[CellStatus, str, str], ...] = (
    ("fail", "FAIL", "a MUST is broken"),
    ("error", "error", "the harness failed; nobody is accused"),
    ("unavailable", "unchecked", "a check could not be made; no MUST is seen to be broken"),
    ("deviation", "deviates", "a SHOULD is not kept; no MUST is broken"),
    ("waived", "waived", "broken, and accepted by the run's waivers"),
    ("pass", "pass", "every planned case was checked, and holds"),
    ("not tried", "not tried", "the profile plans no case for it"),
    ("not claimed", "not claimed", "the saver does not claim it"),
    ("no demand", "no demand", "no clause demands anything there"),
)
"""Every status with its word and its meaning, the worst first; no view has other words."""

WORST_FIRST: tuple[CellStatus, ...] = tuple(status for status, _, _ in _TABLE)
WORDS: dict[CellStatus, str] = {status: word for status, word, _ in _TABLE}
MEANINGS: dict[CellStatus, str] = {status: meaning for status, _, meaning in _TABLE}

VERDICTS: dict[int, str] = {
    CONFORMS: "conforms",
    BROKEN: "does not conform",
    INCONCLUSIVE: "inconclusive",
    HARNESS_FAILED: "harness failed",
}

_ORDER = (BROKEN, HARNESS_FAILED, INCONCLUSIVE, CONFORMS)


def worst(statuses: Iterable[CellStatus]) -> CellStatus:
    """The status that says most; ``no demand`` when there is none."""
    return min(statuses, key=WORST_FIRST.index, default="no demand")


def status_of(rows: Iterable[Row], applies: bool, claimed: bool) -> CellStatus:
    """What ``rows`` come to, of clauses that apply and modes that are claimed, or not."""
    if statuses := [row.status for row in rows]:
        return worst(statuses)
    if not claimed:
        return "not claimed"
    return "not tried" if applies else "no demand"


def in_area(result: Result, area: str) -> CellStatus:
    """The status of an area over all claimed modes."""
    clauses = [clause for clause in result.clauses.values() if clause.area == area]
    applies = any(clause.applies_to(result.modes) for clause in clauses)
    rows = (row for row in result.rows if row.area == area)
    # An area that is about other modes than the claimed ones, as ADAPTER often is.
    return status_of(rows, applies, claimed=applies or not clauses)


def in_folder(row: Row, folder: Folder) -> CellStatus:
    """The status of a row in the saves into one kind of folder."""
    if folder == "any" or row.status == "not claimed":
        return row.status
    share = row.empty if folder == "empty" else row.used
    if share is None or not share.planned:
        return "not tried"
    if share.findings:
        return row.status
    if share.cases == share.planned:
        return "pass"
    return row.status if row.status in ("error", "waived") else "unavailable"


def modes_by_status(result: Result, area: str, folder: Folder) -> dict[CellStatus, int]:
    """In how many modes an area has a status, the worst status first.

    A mode in which clauses fail and others deviate counts for both. ``pass`` counts the modes in
    which all of them hold, and modes that no case tries do not count.
    """
    modes: dict[str, set[CellStatus]] = {}
    for row in result.rows:
        if row.area == area:
            modes.setdefault(row.mode, set()).add(in_folder(row, folder))
    tried = [found - {"not tried", "not claimed"} for found in modes.values()]
    found: list[CellStatus] = [
        status for one in tried for status in (one - {"pass"} if len(one) > 1 else one)
    ]
    return {status: found.count(status) for status in WORST_FIRST if status in found}


def tried_modes(result: Result, area: str, folder: Folder) -> int:
    """In how many modes some case is about an area."""
    return len(
        {
            row.mode
            for row in result.rows
            if row.area == area and in_folder(row, folder) not in ("not tried", "not claimed")
        }
    )


def in_mode(result: Result, mode: str) -> CellStatus:
    """The status of a mode over all areas."""
    rows = (row for row in result.rows if row.mode == mode)
    return status_of(rows, applies=True, claimed=mode in result.modes)


def in_mode_and_area(result: Result, mode: str, area: str) -> CellStatus:
    """The status of an area in one mode."""
    clauses = (clause for clause in result.clauses.values() if clause.area == area)
    applies = any(clause.applies_to((mode,)) for clause in clauses)
    rows = (row for row in result.rows if (row.mode, row.area) == (mode, area))
    return status_of(rows, applies, claimed=mode in result.modes)


def of_clause(result: Result, clause: Clause) -> CellStatus:
    """The status of a clause over all claimed modes."""
    rows = (row for row in result.rows if row.clause == clause.id)
    applies = clause.applies_to(result.modes)
    return status_of(rows, applies, claimed=applies)


def sentence(result: Result) -> str:
    """The verdict and its reason, to stand after the saver's name."""
    said = {INCONCLUSIVE: "was not judged to the end", HARNESS_FAILED: "was not judged"}
    return f"{said.get(result.exit_code, VERDICTS[result.exit_code])}: {why(result)}"


def why(result: Result) -> str:
    """The reason of the verdict, and what it does not rest on."""
    shard = f"in shard {result.shard} alone, " if result.shard else ""
    return f"{shard}{_why(result)}{_tell_waived(result)}{_tell_unclaimed(result)}"


def _why(result: Result) -> str:
    if result.exit_code == CONFORMS:
        return _why_it_conforms(result)
    if result.exit_code == BROKEN:
        return _why_broken(result)
    if result.exit_code == HARNESS_FAILED:
        return "the harness failed, and nobody is accused"
    if missing := result.expected - result.executed:
        return f"{missing} of {count(result.expected, 'planned case')} not run"
    return "not everything that is claimed was checked"


def _why_it_conforms(result: Result) -> str:
    held = "holds or is waived" if result.count("waived") else "holds"
    modes = count(len(result.modes), "claimed mode")
    checked = f"was checked in {count(result.executed, 'case')} of {modes}, and {held}"
    if untried := _count_musts(result, "not tried"):
        musts = count(untried, "other MUST")
        return f"every claimed MUST that is tried {checked}; the profile plans no case for {musts}"
    return f"every claimed MUST {checked}"


def _count_musts(result: Result, status: CellStatus) -> int:
    """Number of the MUSTs of the claimed modes that have ``status`` in all of them."""
    return sum(
        clause.level == "MUST"
        and clause.applies_to(result.modes)
        and of_clause(result, clause) == status
        for clause in result.clauses.values()
    )


def _tell_unclaimed(result: Result) -> str:
    """What the saver says that it has no part in, though its modes ask for it."""
    number = _count_musts(result, "not claimed")
    return f"; the saver claims no part in {count(number, 'MUST')}" if number else ""


def _tell_waived(result: Result) -> str:
    number = result.count("waived")
    return f"; {count(number, 'clause')} waived" if number else ""


def failures_first(results: Iterable[Result]) -> tuple[Result, ...]:
    """Those that break most at the front, then those without a verdict, then those that conform."""
    return tuple(
        sorted(
            results,
            key=lambda result: (
                _ORDER.index(result.exit_code),
                -len(result.broken()),
                result.saver,
            ),
        )
    )


def tally(results: Iterable[Result]) -> str:
    """How many savers came to which verdict, as a sentence."""
    codes = [result.exit_code for result in results]
    if not codes:
        return "No saver was judged."
    parts = [
        f"{number} {verb}"
        for code, verb in (
            (BROKEN, "does not conform" if codes.count(BROKEN) == 1 else "do not conform"),
            (HARNESS_FAILED, "met a failing harness"),
            (INCONCLUSIVE, "not judged to the end"),
            (CONFORMS, "conforms" if codes.count(CONFORMS) == 1 else "conform"),
        )
        if (number := codes.count(code))
    ]
    return f"Of {count(len(codes), 'saver')}, {_enumerate(parts)}."


def _why_broken(result: Result) -> str:
    reasons = []
    if broken := result.broken():
        modes = {row.mode for row in result.rows if row.status == "fail"}
        claimed = f"{len(modes)} of {count(len(result.modes), 'claimed mode')}"
        reasons.append(f"{musts_are(len(broken), 'broken')}, in {claimed}")
    if number := len(result.waiver_faults):
        reasons.append(f"{count(number, 'waiver')} {'is' if number == 1 else 'are'} wrong")
    return _enumerate(reasons)


def musts_are(number: int, what: str) -> str:
    """How many MUSTs are ``what``: ``1 MUST is broken``."""
    return f"{count(number, 'MUST')} {'is' if number == 1 else 'are'} {what}"


def _enumerate(parts: list[str]) -> str:
    return " and ".join([*([", ".join(parts[:-1])] if parts[1:] else []), *parts[-1:]])
