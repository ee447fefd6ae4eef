"""Savers that have a name: those of a folder, and those that installed projects register.

A project registers its savers as entry points::

    [project.entry-points."saver_conformance.savers"]
    my-saver = "my_package.saving:save"

Those of a folder need no installation. The folder is the option ``--savers-dir``, or else what
``pyproject.toml`` of the current folder says::

    [tool.saver_conformance]
    savers-dir = "my_package/savers"

No saver is imported here: the ranks import the one that is judged.
"""

from __future__ import annotations

import importlib.util
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from saver_conformance.claims.claim import Claim, claims_in
from saver_conformance.claims.claims_file import read_claims
from saver_conformance.errors import ClaimsFileError, UnknownSaverError
from saver_conformance.safe_text import quoted

ENTRY_POINTS = "saver_conformance.savers"
"""The group of entry points in which projects register savers."""
SETTINGS, SAVERS_DIR = "saver_conformance", "savers-dir"
"""The table below ``tool`` in a ``pyproject.toml``, and its key."""
CLAIMS = "saver_claims.toml"
"""A claims file beside a module: it is about its savers that have no claim in the source."""


def find_claim(saver: str, folder: Path, savers_dir: Path | None = None) -> Claim:
    """What is known of ``saver``.

    Args:
        saver: ``package.module:function``, or a name. An address whose source has no claim is taken
            to claim everything.
        folder: the folder from which savers are imported, besides where Python looks.
        savers_dir: see ``list_savers``.

    Raises:
        UnknownSaverError: ``saver`` is no address and no saver has the name, or two have it, or a
            claim cannot be read.
    """
    if ":" in saver:
        return _read_claim(saver, folder)
    known = list(list_savers(folder, savers_dir))
    found = {claim.address: claim for claim in known if claim.name == saver}
    if len(found) > 1:
        raise UnknownSaverError(f"{saver!r} is the name of {' and of '.join(found)}; give one")
    if found:
        return next(iter(found.values()))
    names = ", ".join(dict.fromkeys(claim.name for claim in known if claim.name))
    raise UnknownSaverError(
        f"{saver!r} is no saver; write package.module:function"
        + (f", or one of the names {names}" if names else "")
    )


def list_savers(folder: Path, savers_dir: Path | None = None) -> Iterator[Claim]:
    """The savers of a folder, then those that installed projects register.

    Args:
        folder: the folder from which savers are imported, besides where Python looks.
        savers_dir: a folder of modules with savers, relative to ``folder``; None: the one that
            ``pyproject.toml`` in ``folder`` names, if it names one.

    Raises:
        UnknownSaverError: there is no such folder, or a setting or a claim cannot be read.
    """
    place = savers_dir or _configured(folder)
    if place is not None:
        yield from _savers_in(folder / place, folder)
    for entry in sorted(entry_points(group=ENTRY_POINTS), key=lambda entry: entry.name):
        yield replace(_read_claim(f"{entry.module}:{entry.attr}", folder), name=entry.name)


def check_address(address: str, folder: Path) -> None:
    """Look for the package of ``address`` without importing it.

    Args:
        address: ``package.module:function``.
        folder: the folder from which savers are imported, besides where Python looks.

    Raises:
        UnknownSaverError: there certainly is none.
    """
    package = address.partition(":")[0].partition(".")[0]
    try:
        found = package in sys.modules or _find_package(package, folder) is not None
    except (ImportError, ValueError):
        return
    if not found:
        raise UnknownSaverError(
            f"the saver {address} cannot be imported: there is no module {package!r} in {folder} "
            "or where Python looks; run it where the saver is importable, or set PYTHONPATH"
        )


def _configured(folder: Path) -> Path | None:
    """The folder that ``pyproject.toml`` in ``folder`` names."""
    path = folder / "pyproject.toml"
    if not path.is_file():
        return None
    try:
        plain: Any = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnknownSaverError(f"{path} cannot be read: {error}") from error
    for key in ("tool", SETTINGS, SAVERS_DIR):
        if not isinstance(plain, dict):
            raise UnknownSaverError(f"{path}: expected a table [tool.{SETTINGS}]")
        plain = plain.get(key, {} if key != SAVERS_DIR else None)
    if plain is None:
        return None
    if not isinstance(plain, str):
        raise UnknownSaverError(
            f"{path}: tool.{SETTINGS}.{SAVERS_DIR}: expected a folder, found {quoted(plain)}"
        )
    return Path(plain)


def _savers_in(place: Path, folder: Path) -> Iterator[Claim]:
    """The savers in the modules below ``place``."""
    place = place.resolve()
    if not place.is_dir():
        raise UnknownSaverError(f"the folder of savers {place} does not exist")
    roots = [folder.resolve(), *(Path(entry).resolve() for entry in sys.path if entry)]
    root = next((root for root in roots if place.is_relative_to(root)), None)
    if root is None:
        raise UnknownSaverError(
            f"the savers in {place} cannot be imported: it lies neither below {folder} nor where "
            "Python looks; run it in a folder above, or set PYTHONPATH to one"
        )
    for path in sorted(place.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        inside = path.relative_to(place).parts
        if all(map(str.isidentifier, parts)) and not any(part[0] == "_" for part in inside):
            yield from claims_in(path, ".".join(parts))


def _read_claim(address: str, folder: Path) -> Claim:
    """The claim in the source of the function at ``address``; everything, if there is none."""
    module, _, function = address.partition(":")
    source = source_of(module, folder)
    found = claims_in(source, module, function) if source and function else iter(())
    claim = next(found, Claim(address))
    beside = source.with_name(CLAIMS) if source else None
    if claim == Claim(address) and beside and beside.is_file():
        try:
            return claim.claiming(read_claims(beside))
        except ClaimsFileError as error:
            raise UnknownSaverError(str(error)) from error
    return claim


def source_of(module: str, folder: Path) -> Path | None:
    """The file of ``module``; None if it cannot be known without importing it."""
    package, *inside = module.split(".")
    try:
        spec = _find_package(package, folder)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not inside:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for place in spec.submodule_search_locations or ():
        path = Path(place, *inside)
        for source in (path / "__init__.py", path.with_suffix(".py")):
            if source.is_file():
                return source
    return None


def _find_package(package: str, folder: Path) -> ModuleSpec | None:
    """Where the package is, in ``folder`` or where Python looks; nothing is imported."""
    return PathFinder.find_spec(package, [str(folder)]) or importlib.util.find_spec(package)
