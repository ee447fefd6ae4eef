"""The families of models, one file each.

A file makes one or more :class:`~saver_conformance.cases.family.Family`; that registers it. Another
package adds a family by an entry point in the group ``saver_conformance.families``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache

from saver_conformance.cases.family import Family
from saver_conformance.cases.registry import load

GROUP = "saver_conformance.families"
"""The group of entry points."""


@cache
def families() -> Mapping[str, Family]:
    """All families by name, the simplest first."""
    return load(sys.modules[__name__], GROUP, Family)


def names() -> tuple[str, ...]:
    """The names of all families, the simplest first."""
    return tuple(families())
