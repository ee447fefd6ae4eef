"""Pages in HTML: one file each, which needs nothing else, and no script to be read."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import cache
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from saver_conformance.reports.advice import ADVICE
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
    folders_told_apart,
    savers_by_areas,
    savers_by_modes,
    savers_over_time,
    view_subject,
    view_subjects,
)


def render_report(result: Result) -> str:
    """The page of one run."""
    return _render("report.html.j2", subject=view_subject(result, "s1"))


def render_site(results: Sequence[Result]) -> str:
    """The comparison of many runs, failures first."""
    ordered = failures_first(results)
    subjects = view_subjects(ordered)
    return _render(
        "site.html.j2",
        subjects=subjects,
        tally=tally(ordered),
        days=sorted({result.time[:10] for result in ordered}),
        profiles=sorted({result.profile for result in ordered}),
        matrices=(
            *(savers_by_areas(subjects, folder) for folder in folders_told_apart(subjects)),
            savers_by_modes(subjects),
        ),
        history=savers_over_time(subjects),
    )


def _render(template: str, **values: object) -> str:
    style, script = _read("style.css"), _read("filter.js")
    # Names and tracebacks come from whoever was judged: should one of them become markup in spite
    # of the escaping, it can neither run nor load anything.
    policy = (
        f"default-src 'none'; img-src data:; style-src {_digest(style)}; "
        f"script-src {_digest(script)}; base-uri 'none'; form-action 'none'"
    )
    values |= {"policy": policy, "style": Markup(style), "script": Markup(script)}
    return _environment().get_template(template).render(values) + "\n"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("saver_conformance.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "prose": _mark_code,
        "date": _show_time,
        "slug": _make_slug,
        "address": _mark_address,
    }
    environment.globals |= {"words": WORDS, "meanings": MEANINGS, "statuses": WORST_FIRST}
    environment.globals |= {"advice": ADVICE}
    return environment


def _read(name: str) -> str:
    source = resources.files(__package__).joinpath("templates", name)
    return source.read_text(encoding="utf-8")


def _digest(source: str) -> str:
    digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _mark_code(text: str) -> Markup:
    """``text`` with what stands between backticks as code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # one without a partner
        return escape(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part)
        for number, part in enumerate(parts)
    )


def _mark_address(saver: str) -> Markup:
    """A saver's address with its module set apart, and places where the line may break."""
    module, colon, function = saver.rpartition(":")
    shown = Markup('<span class="module">{}</span>').format(_breakable(module + colon))
    return (shown if module else Markup("")) + _breakable(function)


def _breakable(name: str) -> Markup:
    return Markup("").join(
        escape(part) + (Markup("<wbr>") if part in (".", ":", "_", "-") else Markup(""))
        for part in re.split(r"([.:_-])", name)
    )


def _show_time(time: str) -> str:
    """``2026-01-31T12:00:00Z`` as ``2026-01-31 12:00 UTC``."""
    return f"{time[:10]} {time[11:16]} UTC"


def _make_slug(status: CellStatus) -> str:
    """A status as the name of a class."""
    return status.replace(" ", "-")
