"""Trains tiny models under every mode, has them saved, and reloads them."""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec

from packaging.requirements import Requirement

from saver_conformance.cases.case import Mode
from saver_conformance.errors import Unavailable


def require(mode: Mode) -> None:
    """Make sure that the libraries of ``mode`` are installed.

    Raises:
        Unavailable: one is missing; the message names it.
    """
    needed = (*(("bitsandbytes",) if mode.method == "qlora" else ()), *mode.definition.requires)
    for requirement in map(Requirement, needed):
        if find_spec(requirement.name) is None:
            raise Unavailable(f"{mode} needs {requirement.name}, which is not installed")
        if requirement.specifier and not requirement.specifier.contains(
            found := version(requirement.name), prereleases=True
        ):
            raise Unavailable(f"{mode} needs {requirement}, found {found}")
