"""Finds what registers itself: each module of a folder, and each entry point of a package.

A file in the folder is all that it takes; no list names it. Other packages add theirs by an entry
point, which the ranks and the reloading processes find too.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from types import MappingProxyType, ModuleType
from typing import Any, Protocol, TypeVar


class Registered(Protocol):
    """What can be registered: it has a name, and a place among the values of its axis."""

    @property
    def name(self) -> str:
        """The value on the axis."""
        ...

    @property
    def place(self) -> int:
        """Where it stands on the axis, the simplest first."""
        ...


R = TypeVar("R", bound=Registered)


def load(package: ModuleType, group: str, kind: type[R]) -> Mapping[str, R]:
    """Everything of ``kind`` that is in the modules of ``package`` or in the entry points.

    Args:
        package: its modules are imported; each ``kind`` at their top level counts.
        group: the group of entry points; each names a ``kind``.
        kind: the class of what is registered.

    Returns:
        By name, in the order of the axis.

    Raises:
        ValueError: two have one name, or an entry point names something else.
    """
    found: dict[str, R] = {}
    for item, origin in (*_in_modules(package, kind), *_in_entry_points(group, kind)):
        if found.setdefault(item.name, item) is not item:
            raise ValueError(f"{origin}: {item.name!r} is registered already; give it another name")
    ordered = sorted(found.values(), key=lambda item: (item.place, item.name))
    return MappingProxyType({item.name: item for item in ordered})


def _in_modules(package: ModuleType, kind: type[R]) -> Iterator[tuple[R, str]]:
    for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        module = importlib.import_module(info.name)
        for value in vars(module).values():
            if isinstance(value, kind):
                yield value, info.name


def _in_entry_points(group: str, kind: type[R]) -> Iterator[tuple[R, str]]:
    for point in entry_points(group=group):
        value: Any = point.load()
        if not isinstance(value, kind):
            raise ValueError(
                f"entry point {point.name} of {group}: expected a {kind.__name__}, found "
                f"{type(value).__name__} at {point.value}"
            )
        yield value, f"entry point {point.name}"
