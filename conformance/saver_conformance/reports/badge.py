"""A result for a badge service that reads an endpoint: JSON of four fields."""

from __future__ import annotations

import json

from saver_conformance.reports.result import Result
from saver_conformance.reports.status import VERDICTS
from saver_conformance.safe_text import count
from saver_conformance.verdict.verdict import BROKEN, CONFORMS, HARNESS_FAILED, INCONCLUSIVE

LABEL = "saver conformance"

_COLORS = {
    CONFORMS: "brightgreen",
    BROKEN: "red",
    INCONCLUSIVE: "yellow",
    HARNESS_FAILED: "lightgrey",
}


def render(result: Result) -> str:
    """The content of ``badge.json``."""
    badge = {
        "schemaVersion": 1,
        "label": LABEL,
        "message": _message(result),
        "color": _COLORS[result.exit_code],
    }
    return json.dumps(badge, indent=2) + "\n"


def _message(result: Result) -> str:
    if broken := result.broken():
        return f"{count(len(broken), 'MUST')} broken"
    word = VERDICTS[result.exit_code]
    if result.exit_code != CONFORMS:
        return word
    waived = f", {number} waived" if (number := result.count("waived")) else ""
    # A glance at one mode is not what the gate says of all.
    return f"{word} ({result.profile}, {count(len(result.modes), 'mode')}{waived})"
