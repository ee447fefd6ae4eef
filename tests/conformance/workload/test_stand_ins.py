"""Modules that hold stand-ins for classes of libraries that are missing."""

from __future__ import annotations

import sys
from types import ModuleType

from saver_conformance.workload.library_functions import LibraryFunctions


class Missing(type):
    def __hash__(cls) -> int:
        raise RuntimeError("the library could not be imported")


def test_look_stand_in_that_raises_is_left_out(monkeypatch) -> None:
    module = ModuleType("stand_ins")
    module.absent = Missing("absent", (), {})
    monkeypatch.setitem(sys.modules, "stand_ins", module)
    functions = LibraryFunctions()
    assert functions.look() == functions.look() == {}
