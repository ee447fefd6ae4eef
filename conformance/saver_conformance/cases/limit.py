"""A limit: values of axes that cannot be trained or make no sense together, whoever saves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any


@dataclass(frozen=True, slots=True)
class Limit:
    """What cannot be trained, and why: seen failing, and where in whose code.

    Attributes:
        why: the reason, one line.
        modes: patterns of the modes in which it holds, separated by commas.
        when: values of axes that all have to be met, each one of those listed.
        unless: values of axes none of which may be met; an axis that is not known yet meets them.
    """

    why: str
    modes: str = "*"
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    unless: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def holds(self, values: Mapping[str, Any], mode: str) -> bool:
        """Whether it forbids ``values`` in the mode called ``mode``.

        Args:
            values: values of all axes, or of some: the others are taken for the simplest ones,
                which no limit speaks of.
            mode: the name of the mode; empty when it is not known, then only limits of every mode
                hold.
        """
        if self.modes != "*" and not any(fnmatchcase(mode, one) for one in self.modes.split(",")):
            return False
        return all(values.get(axis, _UNKNOWN) in them for axis, them in self.when.items()) and all(
            axis in values and values[axis] not in them for axis, them in self.unless.items()
        )


_UNKNOWN = object()
