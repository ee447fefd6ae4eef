"""The comparison of savers as Markdown, for a README."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from saver_conformance.reports.markdown import code, table
from saver_conformance.reports.result import Result
from saver_conformance.reports.status import (
    MEANINGS,
    WORDS,
    WORST_FIRST,
    CellStatus,
    failures_first,
    tally,
)
from saver_conformance.reports.view import (
    Matrix,
    Subject,
    savers_by_areas,
    savers_by_modes,
    view_subjects,
)


def by_areas(results: Sequence[Result]) -> str:
    """Savers by areas."""
    return _render(results, savers_by_areas)


def by_modes(results: Sequence[Result]) -> str:
    """Savers by modes, a line for each method that a saver claims."""
    return _render(results, savers_by_modes)


def _render(results: Sequence[Result], compare: Callable[[Sequence[Subject]], Matrix]) -> str:
    ordered = failures_first(results)
    matrix = compare(view_subjects(ordered))
    rows = (
        [code(line.name), line.note, *(_word(cell.status) for cell in line.cells)]
        for line in matrix.lines
    )
    seen = {cell.status for line in matrix.lines for cell in line.cells}
    legend = "; ".join(f"{WORDS[item]}: {MEANINGS[item]}" for item in WORST_FIRST if item in seen)
    parts = [
        tally(ordered),
        table([*matrix.heads, *matrix.columns], rows),
        f"{legend}.",
        "\n".join(_describe(ordered)),
    ]
    return "\n\n".join(parts)


def _word(status: CellStatus) -> str:
    return f"**{WORDS[status]}**" if status == "fail" else WORDS[status]


def _describe(results: Sequence[Result]) -> Iterator[str]:
    """On what the savers ran, those with the same profile and versions together."""
    stacks: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
        stacks.setdefault((result.profile, versions), []).append(result)
    for (profile, versions), same in stacks.items():
        days = sorted({result.time[:10] for result in same})
        savers = ", ".join(code(result.saver) for result in same)
        when = " to ".join(dict.fromkeys((days[0], days[-1])))
        yield f"- {savers}: profile {code(profile)}, {when}"
        yield f"  with {code(versions)}"
