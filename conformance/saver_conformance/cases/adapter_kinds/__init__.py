"""The kinds of adapters, one file each.

A file makes one or more :class:`~saver_conformance.cases.adapter_kind.AdapterKind`; that registers
it. Another package adds a kind by an entry point in the group ``saver_conformance.adapter_kinds``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache

from saver_conformance.cases.adapter_kind import AdapterKind
from saver_conformance.cases.registry import load

GROUP = "saver_conformance.adapter_kinds"
"""The group of entry points."""


@cache
def adapter_kinds() -> Mapping[str, AdapterKind]:
    """All kinds by name, the simplest first."""
    return load(sys.modules[__name__], GROUP, AdapterKind)


def names() -> tuple[str, ...]:
    """The names of all kinds, the simplest first."""
    return tuple(adapter_kinds())
