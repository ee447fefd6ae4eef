"""The settings of training, one file each.

A file makes one or more :class:`~saver_conformance.cases.setting.Setting`; that registers it.
Another package adds a setting by an entry point in the group ``saver_conformance.settings``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache

from saver_conformance.cases.registry import load
from saver_conformance.cases.setting import Setting

GROUP = "saver_conformance.settings"
"""The group of entry points."""


@cache
def settings() -> Mapping[str, Setting]:
    """All settings by name, the simplest first."""
    return load(sys.modules[__name__], GROUP, Setting)


def names() -> tuple[str, ...]:
    """The names of all settings, the simplest first."""
    return tuple(settings())
