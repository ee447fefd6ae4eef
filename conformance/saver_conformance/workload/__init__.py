"""Trains tiny models under every mode, has them saved, and reloads them."""

from __future__ import annotations

from saver_conformance.cases.case import Case
from saver_conformance.cases.requirement import why_missing
from saver_conformance.errors import Unavailable


def require(case: Case) -> None:
    """Make sure that the libraries of ``case`` are installed, in versions that can train it.

    Raises:
        Unavailable: one is missing or too old; the message names it.
    """
    from saver_conformance.workload.version_compat import why_unable

    if why := _why_missing(case) or why_unable(case):
        raise Unavailable(why)


def _why_missing(case: Case) -> str:
    libraries = (
        *(("bitsandbytes",) if case.base_bits else ()),
        *case.mode.definition.requires,
    )
    kind = case.adapter.method if case.adapter else None
    return (
        why_missing(str(case.mode), libraries)
        or why_missing(f"the family {case.family.name}", case.family.requires)
        or (why_missing(f"the adapter kind {kind.name}", kind.requires) if kind else "")
    )
