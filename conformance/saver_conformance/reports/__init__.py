"""What is made of a report: a page, a summary, JUnit's XML and a badge; of many, a comparison.

Everything here reads the plain content of ``report.json`` and nothing else, so that a report of
another day, machine or version of the libraries is shown as it was written. It may come from
anywhere: all of it is untrusted text, cleaned once, where ``result.py`` reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saver_conformance.reports import badge, html, junit, summary
from saver_conformance.reports.result import VERSION, parse

__all__ = ["VERSION", "write_pages"]


PAGE_FILE = "index.html"
"""The page for people."""


def write_pages(report: Mapping[str, Any], folder: Path) -> Path:
    """Write what people and CI read, made of the content of a ``report.json``, next to it.

    Returns:
        The path of the page for people.
    """
    result = parse(report)
    for name, text in (
        (PAGE_FILE, html.render_report(result)),
        ("junit.xml", junit.render(result)),
        ("summary.md", summary.render(result)),
        ("badge.json", badge.render(result)),
    ):
        (folder / name).write_text(text, encoding="utf-8")
    return folder / PAGE_FILE
