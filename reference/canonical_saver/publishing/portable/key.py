"""A setting under a name that other readers know."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Place = tuple[str, ...]
"""The keys that lead to a configuration inside of another one; empty for the outer one."""


@dataclass(frozen=True)
class Key:
    """A setting to be added.

    Attributes:
        inside: the configuration that it belongs to.
        name: the name.
        value: the value, as JSON has it.
        readers: who looks for it.
    """

    inside: Place
    name: str
    value: Any
    readers: str

    @property
    def place(self) -> str:
        """Its name behind those of the configurations around it."""
        return ".".join((*self.inside, self.name))

    def put(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Add it to a copy of a configuration."""
        made = copy.deepcopy(dict(config))
        part(made, self.inside)[self.name] = self.value
        return made


@dataclass(frozen=True)
class Choice:
    """Spellings of one setting, of which the first that the class reads alike is taken.

    Attributes:
        spellings: the spellings.
        missed: what to say where none fits, "" where nothing is lost.
        kept: whether the class may keep it as one more attribute, as it does with that of a
            published checkpoint. Every other setting has to stay as it is.
        makes: the setting that the class would make of it, where that setting were not there; a
            class that does not is not one that has ever known the name. "" for none.
    """

    spellings: tuple[Key, ...]
    missed: str = ""
    kept: bool = False
    makes: str = ""


def part(config: Any, inside: Place) -> Any:
    """The configuration at a place."""
    for name in inside:
        config = config[name]
    return config
