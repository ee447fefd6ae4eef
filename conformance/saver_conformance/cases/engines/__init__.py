"""The engines, one file each.

A file makes one or more :class:`~saver_conformance.cases.engine.Engine`; that registers it. Another
package adds an engine by an entry point in the group ``saver_conformance.engines``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache

from saver_conformance.cases.engine import Engine
from saver_conformance.cases.registry import load

GROUP = "saver_conformance.engines"
"""The group of entry points."""


@cache
def engines() -> Mapping[str, Engine]:
    """All engines by name, the simplest first."""
    return load(sys.modules[__name__], GROUP, Engine)


def sharing_a_table(name: str) -> tuple[str, ...]:
    """The engines among which the gate deals the table of pairs that this engine shares.

    Returns:
        Their names, this one's too; nothing where it has a table of its own.
    """
    table = engines()[name].table
    return tuple(own for own, engine in engines().items() if table and engine.table == table)


def names() -> tuple[str, ...]:
    """The names of all engines, the simplest first."""
    return tuple(engines())
