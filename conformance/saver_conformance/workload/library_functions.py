"""Functions and methods of all that is imported, to be compared after a save.

A save that puts others in their place leaves them to all that comes after it. Excused are:

- what a library does to itself, such as functions that replace themselves when first called;
- what was defined in a module that the save imported: some libraries patch others when they are
  imported, whoever imports them;
- hooks that are there to be set, such as ``sys.excepthook``.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_TO_BE_SET = frozenset({"showwarning", "formatwarning"})
_MAIN = frozenset({"__main__", "__mp_main__"})


class LibraryFunctions:
    """What the names in modules and classes stood for at the first look; it keeps them alive."""

    def __init__(self) -> None:
        """Nothing is looked at yet."""
        self._modules: Mapping[str, Mapping[str, Any]] = {}
        self._classes: Mapping[type, Mapping[str, Any]] = {}

    def look(self) -> dict[str, str]:
        """By its name, what has taken the place of a function since the first look."""
        if self._modules:
            return dict(self._patches())
        self._modules = {
            name: vars(module).copy()
            for name, module in list(sys.modules.items())
            if name not in _MAIN and isinstance(getattr(module, "__dict__", None), dict)
        }
        classes = {
            value: None
            for names in self._modules.values()
            for value in names.values()
            # Some objects warn when asked for their class, and stand-ins for classes raise for all.
            if issubclass(type(value), type)
            and getattr(type(value), "__hash__", None) is type.__hash__
        }
        self._classes = {kind: vars(kind).copy() for kind in classes}
        return {}

    def _patches(self) -> Iterator[tuple[str, str]]:
        for name, names in self._modules.items():
            if (module := sys.modules.get(name)) is not None:
                yield from self._replaced(name, name, names, vars(module))
        for kind, names in self._classes.items():
            owner = str(kind.__module__)
            yield from self._replaced(owner, f"{owner}.{kind.__qualname__}", names, vars(kind))

    def _replaced(
        self, owner: str, place: str, before: Mapping[str, Any], now: Mapping[str, Any]
    ) -> Iterator[tuple[str, str]]:
        for name, old in before.items():
            new = now.get(name)
            if new is old or not _is_function(old) or name.endswith("hook") or name in _TO_BE_SET:
                continue
            if new is None or not self._is_excused(owner, _home(new)):
                yield f"{place}.{name}", f"{_describe(new)}, in place of {_describe(old)}"

    def _is_excused(self, owner: str, home: str) -> bool:
        """Whether a function defined in ``home`` may be put into ``owner``."""
        packages = {name.partition(".")[0] for name in (owner, home)}
        return len(packages) == 1 or packages <= sys.stdlib_module_names or self._is_new(home)

    def _is_new(self, module: str) -> bool:
        return module in sys.modules and module not in {*_MAIN, *self._modules}


def _is_function(value: Any) -> bool:
    return isinstance(value, (staticmethod, classmethod, property)) or callable(value)


def _home(value: Any) -> str:
    """The module whose code a function is; of a wrapper, not that of the function inside."""
    if isinstance(value, property):
        value = value.fget
    if isinstance(value, functools.partial):
        value = value.func
    function: Callable[..., Any] = getattr(value, "__func__", value)
    if (names := getattr(function, "__globals__", None)) is not None:
        return str(names.get("__name__"))
    own = value if isinstance(value, type) or hasattr(value, "__name__") else type(value)
    return str(getattr(own, "__module__", None))


def _describe(value: Any) -> str:
    if value is None:
        return "nothing"
    inner = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
    name = getattr(inner, "__qualname__", type(value).__qualname__)
    return f"{name} of {_home(value)}"
