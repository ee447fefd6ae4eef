"""What has to be installed beside the suite, and what of it is missing; nothing is imported."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

from packaging.requirements import InvalidRequirement, Requirement


def check_requirements(owner: str, requirements: Iterable[str]) -> None:
    """Look whether each text is a requirement as pip reads it, such as ``transformers>=5.10``.

    Raises:
        ValueError: one is not; the message names ``owner``.
    """
    for text in requirements:
        try:
            Requirement(text)
        except InvalidRequirement as error:
            raise ValueError(
                f"{owner}: expected a requirement such as 'transformers>=5.10', found {text!r}"
            ) from error


def why_missing(owner: str, requirements: Iterable[str]) -> str:
    """Why ``owner`` cannot be used with what is installed; empty when it can.

    Args:
        owner: what needs the requirements, for the reason.
        requirements: as pip reads them. One whose marker is about another environment is met.
    """
    for requirement in map(Requirement, requirements):
        wanted = f"{owner} needs {requirement.name}{requirement.specifier}"
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            return (
                f"{owner} needs {requirement.name}{requirement.specifier}, which is not installed"
            )
        if not requirement.specifier.contains(found, prereleases=True):
            return f"{wanted}, found {found}"
    return ""
