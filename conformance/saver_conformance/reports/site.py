"""The comparison of many savers, as a page and as a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from saver_conformance.reports import html, matrix_markdown
from saver_conformance.reports.result import Result, find_reports, read_result

TABLES: Mapping[str, Callable[[Sequence[Result]], str]] = {
    "areas": matrix_markdown.by_areas,
    "modes": matrix_markdown.by_modes,
}
"""The matrices in Markdown, by what their columns are."""


@dataclass(frozen=True, slots=True)
class Collection:
    """Reports from anywhere.

    Attributes:
        results: those that say something about a saver.
        withheld: the others, each as a line with the reason.
    """

    results: tuple[Result, ...]
    withheld: tuple[str, ...]


def collect(places: Iterable[Path]) -> Collection:
    """The reports at ``places``; a report that ran nothing judges nobody and is withheld.

    Raises:
        ResultError: one cannot be read.
    """
    results, withheld = [], []
    for path in dict.fromkeys(find_reports(places)):
        result = read_result(path)
        if reason := why_withheld(result):
            withheld.append(f"{result.saver} ({path}): {reason}")
        else:
            results.append(result)
    return Collection(tuple(results), tuple(withheld))


def why_withheld(result: Result) -> str:
    """Why ``result`` says nothing about its saver as a whole; empty when it does."""
    if result.shard:
        return f"it is of shard {result.shard}; merge the shards first"
    return "" if result.executed else "it ran no case"


def write(results: Sequence[Result], folder: Path) -> Path:
    """Write ``index.html`` and ``matrix.md`` into ``folder``, and return the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "index.html"
    page.write_text(html.render_site(results), encoding="utf-8")
    tables = "\n\n".join(table(results) for table in TABLES.values())
    (folder / "matrix.md").write_text(f"{tables}\n", encoding="utf-8")
    return page
