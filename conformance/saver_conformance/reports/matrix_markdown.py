"""The comparison of savers as Markdown, for a README."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from saver_conformance.reports.markdown import code, table
from saver_conformance.reports.result import Result
from saver_conformance.reports.status import (
    MEANINGS,
    WORDS,
    WORST_FIRST,
    failures_first,
    tally,
)
from saver_conformance.reports.view import (
    Cell,
    Matrix,
    Subject,
    folders_told_apart,
    savers_by_areas,
    savers_by_modes,
    view_subjects,
)


def by_areas(results: Sequence[Result]) -> str:
    """Savers by areas: into an empty folder and into a used one, where reports tell them apart."""
    return _render(
        results,
        lambda subjects: [savers_by_areas(subjects, one) for one in folders_told_apart(subjects)],
    )


def by_modes(results: Sequence[Result]) -> str:
    """Savers by modes, a line for each method that a saver claims."""
    return _render(results, lambda subjects: [savers_by_modes(subjects)])


def _render(
    results: Sequence[Result], compare: Callable[[Sequence[Subject]], Sequence[Matrix]]
) -> str:
    ordered = failures_first(results)
    matrices = compare(view_subjects(ordered))
    cells = [cell for matrix in matrices for line in matrix.lines for cell in line.cells]
    seen = {cell.status for cell in cells}
    legend = "; ".join(f"{WORDS[item]}: {MEANINGS[item]}" for item in WORST_FIRST if item in seen)
    numbers = (
        " A number such as 3/21 is of the modes that were tried."
        if any(cell.share for cell in cells)
        else ""
    )
    parts = [
        tally(ordered),
        *(part for matrix in matrices for part in _table(matrix, named=len(matrices) > 1)),
        f"{legend}.{numbers}",
        "\n".join(_describe(ordered)),
    ]
    return "\n\n".join(parts)


def _table(matrix: Matrix, *, named: bool) -> Iterator[str]:
    if named:
        yield f"**{matrix.caption}**"
    rows = (
        [code(line.name), line.note, *(_word(cell) for cell in line.cells)] for line in matrix.lines
    )
    yield table([*matrix.heads, *matrix.columns], rows)


def _word(cell: Cell) -> str:
    word = f"**{WORDS[cell.status]}**" if cell.status == "fail" else WORDS[cell.status]
    share = f" {cell.share}" if cell.share else ""
    return f"{word}{share}; {cell.rest}" if cell.rest else f"{word}{share}"


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
