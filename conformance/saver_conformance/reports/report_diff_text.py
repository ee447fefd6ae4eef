"""Changes between reports, for a terminal and in Markdown for a comment on a change."""

from __future__ import annotations

from collections.abc import Iterator

from saver_conformance.reports.markdown import block, code, table
from saver_conformance.reports.plain_text import evidence_text
from saver_conformance.reports.report_diff import KINDS, Change, Changes, History, Kind
from saver_conformance.reports.result import Result
from saver_conformance.reports.status import VERDICTS, WORDS
from saver_conformance.safe_text import count

HEADINGS: dict[Kind, str] = {
    "broke": "Broke",
    "deviates": "Deviates now",
    "fixed": "Fixed",
    "newly checked": "Newly checked",
    "no longer checked": "No longer checked",
}
SHOWN_EVIDENCE = 5
"""Changes that are told with their finding; the report has all."""
SHOWN_ROWS = 40
"""Lines of a table; a comment that is too long is not posted."""


def plain(history: History) -> str:
    """The changes as text."""
    return "\n".join(_plain(history))


def markdown(history: History) -> str:
    """The changes in Markdown."""
    return "\n\n".join(_markdown(history))


def tally(changes: Changes) -> str:
    """The number of clauses of each kind of change, in words."""
    parts = [
        f"{len({item.clause.id for item in found})} {kind}"
        for kind in KINDS
        if (found := changes.of(kind))
    ]
    return ", ".join(parts) or "nothing changed"


def _plain(history: History) -> Iterator[str]:
    for pair in history.pairs:
        yield f"{pair.new.saver}: {_verdicts(pair)}; {tally(pair)}"
        yield from (f"  {note}" for note in pair.notes)
        for kind in KINDS:
            for item in pair.of(kind):
                yield f"  {HEADINGS[kind].lower()}: {_heading(item)}"
                yield f"    in {', '.join(item.modes)}: {_statuses(item)}"
                if item.kind == "no longer checked" and item.reason:
                    yield f"    {item.reason.splitlines()[0]}"
                if item.kind in ("broke", "deviates") and item.evidence is not None:
                    yield from (f"    {line}" for line in evidence_text(item.evidence).splitlines())
    yield from (f"newly judged: {_name(result)}" for result in history.added)
    yield from (f"no longer judged: {result.saver}" for result in history.removed)


def _markdown(history: History) -> Iterator[str]:
    for pair in history.pairs:
        mark = "something broke" if pair.has_broken else "nothing broke"
        yield f"## {code(pair.new.saver)}: {mark}"
        yield f"{_verdicts(pair)[0].upper()}{_verdicts(pair)[1:]}; {tally(pair)}."
        if pair.notes:
            yield "\n".join(f"- {code(note)}" for note in pair.notes)
        if pair.changes:
            rows = [
                [HEADINGS[item.kind], _heading(item), ", ".join(item.modes), _statuses(item)]
                for item in pair.changes
            ]
            yield table(["", "clause", "modes", "before and now"], rows[:SHOWN_ROWS])
            if len(rows) > SHOWN_ROWS:
                yield f"{count(len(rows) - SHOWN_ROWS, 'more line')} in the report."
        told = [item for item in pair.of("broke") if item.evidence is not None]
        for item in told[:SHOWN_EVIDENCE]:
            assert item.evidence is not None
            yield f"### {_heading(item)}"
            yield block(evidence_text(item.evidence))
    if history.added:
        yield f"Newly judged: {', '.join(code(_name(result)) for result in history.added)}."
    if history.removed:
        yield f"No longer judged: {', '.join(code(result.saver) for result in history.removed)}."


def _heading(item: Change) -> str:
    return f"{item.clause.id} ({item.clause.level}) {item.clause.title}"


def _statuses(item: Change) -> str:
    return f"{WORDS[item.before]}, now {WORDS[item.after]}"


def _verdicts(pair: Changes) -> str:
    old, new = VERDICTS[pair.old.exit_code], VERDICTS[pair.new.exit_code]
    return f"{new}, as before" if old == new else f"{old} before, {new} now"


def _name(result: Result) -> str:
    return f"{result.saver}, {VERDICTS[result.exit_code]}"
