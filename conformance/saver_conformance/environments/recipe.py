"""What an environment is made of: an address such as ``uv:axolotl==0.19.0``, or an entry of a file.

The file is TOML::

    [savers.my-saver]
    requirements = ["my-framework==1.2", "torch==2.11.0"]  # with what they require
    exact = ["pins.txt"]             # requirements files, installed as they are
    python = "3.11"                  # default: the version that runs the suite
    call = "my_framework.saving:save"

    [savers.other]
    venv = "path/to/venv"            # in place of requirements: an environment that is there
    call = "other.saving:save"

Paths in it are relative to the file.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saver_conformance.errors import EnvironmentFailedError
from saver_conformance.safe_text import quoted

DEFAULT_FILE = "saver-environments.toml"
"""The file in the current folder that is read where none is named."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_CALL = re.compile(r"[\w.-]+(:\w+)?")
_LISTS, _TEXTS = ("requirements", "exact"), ("python", "venv", "call")


@dataclass(frozen=True, slots=True)
class Recipe:
    """An environment and the saver in it.

    Attributes:
        call: the saver as it is called inside: ``package.module:function``, or a name.
        requirements: what is installed, with what it requires.
        exact: requirements files that are installed as they are.
        python: the version of Python; empty for the one that runs the suite.
        venv: an environment that is there already; None where one is made.
    """

    call: str
    requirements: tuple[str, ...] = ()
    exact: tuple[Path, ...] = ()
    python: str = ""
    venv: Path | None = None

    @property
    def name(self) -> str:
        """A short name: that of the first requirement."""
        return name_of(self.requirements[0]) if self.requirements else self.exact[0].stem


def name_of(requirement: str) -> str:
    """The distribution's name in a requirement; a path's last part."""
    found = _NAME.match(Path(requirement).name if "/" in requirement else requirement)
    return found[0].rstrip(".-_") if found else "environment"


def find_recipe(saver: str, file: Path | None, folder: Path) -> Recipe | None:
    """The environment that ``saver`` asks for; None if it is judged in this one.

    Args:
        saver: what ``--saver`` was given: ``uv:REQUIREMENTS``, ``venv:PATH``, either with
            ``#package.module:function`` behind it, or the name of an entry.
        file: the file of entries; None: ``saver-environments.toml`` in ``folder``, if it is there.
        folder: the folder that paths are relative to.

    Raises:
        EnvironmentFailedError: the address or the file has another form.
    """
    kind, colon, rest = saver.partition(":")
    if colon and kind in ("uv", "venv"):
        return _parse(kind, rest, folder)
    if file is None and not (folder / DEFAULT_FILE).is_file():
        return None
    return _read(file or folder / DEFAULT_FILE).get(saver)


def _parse(kind: str, text: str, folder: Path) -> Recipe:
    place, sharp, call = text.rpartition("#")
    if not sharp:
        place, call = text, ""
    if not place.strip() or (sharp and not _CALL.fullmatch(call)):
        raise EnvironmentFailedError(
            f"expected uv:REQUIREMENT or venv:PATH, with #package.module:function behind it where "
            f"the saver has another name than the requirement; found {kind}:{quoted(text)}"
        )
    if kind == "venv":
        if not call:
            raise EnvironmentFailedError(
                f"venv:{place} does not say which saver is judged; write "
                f"venv:{place}#package.module:function, or #NAME"
            )
        return Recipe(call, venv=folder / Path(place).expanduser())
    requirements = tuple(place.split())
    return Recipe(call or name_of(requirements[0]), requirements)


def _read(path: Path) -> dict[str, Recipe]:
    try:
        plain: Any = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EnvironmentFailedError(f"{path} cannot be read: {error}") from error
    entries = plain.get("savers", {})
    if set(plain) - {"savers"} or not isinstance(entries, dict):
        raise EnvironmentFailedError(f"{path}: expected tables [savers.NAME] and nothing else")
    return {name: _entry(path, name, entry) for name, entry in entries.items()}


def _entry(path: Path, name: str, entry: Any) -> Recipe:
    where = f"{path}: [savers.{name}]"
    if not isinstance(entry, dict):
        raise EnvironmentFailedError(f"{where}: expected a table, found {quoted(entry)}")
    if unknown := sorted(set(entry) - {*_LISTS, *_TEXTS}):
        raise EnvironmentFailedError(
            f"{where}: unknown keys {', '.join(unknown)}; expected {', '.join((*_LISTS, *_TEXTS))}"
        )
    for key in _LISTS:
        value = entry.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise EnvironmentFailedError(f"{where}: {key}: expected a list, found {quoted(value)}")
    for key in _TEXTS:
        if not isinstance(entry.get(key, ""), str):
            raise EnvironmentFailedError(f"{where}: {key}: expected text, found {entry[key]!r}")
    made = bool(entry.get("requirements") or entry.get("exact"))
    if made == ("venv" in entry):
        raise EnvironmentFailedError(f"{where}: expected either requirements or a venv")
    if not entry.get("call"):
        raise EnvironmentFailedError(f'{where} has no call, such as "my_framework.saving:save"')
    return Recipe(
        entry["call"],
        tuple(entry.get("requirements", ())),
        tuple(path.parent / item for item in entry.get("exact", ())),
        entry.get("python", ""),
        path.parent / Path(entry["venv"]).expanduser() if "venv" in entry else None,
    )
