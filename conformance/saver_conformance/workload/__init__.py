"""Trains tiny models under every mode, has them saved, and reloads them."""

from __future__ import annotations

from importlib.util import find_spec

from saver_conformance.cases.case import Mode
from saver_conformance.errors import Unavailable


def require(mode: Mode) -> None:
    """Make sure that the libraries of ``mode`` are installed.

    Raises:
        Unavailable: one is missing; the message names it.
    """
    needed = (
        {"qlora": "bitsandbytes"}.get(mode.method),
        ("deepspeed" if mode.engine.startswith("zero") else None),
    )
    for library in filter(None, needed):
        if find_spec(library) is None:
            raise Unavailable(f"{mode} needs {library}, which is not installed")
