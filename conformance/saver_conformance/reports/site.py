"""The comparison of many savers, as a page and as a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from saver_conformance.reports import html, matrix_markdown
from saver_conformance.reports.result import Result

TABLES: Mapping[str, Callable[[Sequence[Result]], str]] = {
    "areas": matrix_markdown.by_areas,
    "modes": matrix_markdown.by_modes,
}
"""The matrices in Markdown, by what their columns are."""


def write(results: Sequence[Result], folder: Path) -> Path:
    """Write ``index.html`` and ``matrix.md`` into ``folder``, and return the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "index.html"
    page.write_text(html.render_site(results), encoding="utf-8")
    tables = "\n\n".join(table(results) for table in TABLES.values())
    (folder / "matrix.md").write_text(f"{tables}\n", encoding="utf-8")
    return page
