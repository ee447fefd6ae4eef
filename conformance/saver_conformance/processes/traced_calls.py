"""The system calls in a trace, whole and in the order in which they ended."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from os.path import normpath

_UNFINISHED = " <unfinished ...>"
_TIME = re.compile(r"(\d+ +)(\d+\.\d+) ")
_RESUMED = re.compile(r"(\d+) +<\.\.\. \w+ resumed>(.*)")
_CALL = re.compile(r"\d+ +(\w+)\((.*)\) += (-?\d+)")
_PLACE = re.compile(r'(?:(?:AT_FDCWD|\d+)<([^>]*)>, )?"([^"]*)"')
_WORKING = re.compile(r"AT_FDCWD<([^>]*)>")
_DESCRIPTOR = re.compile(r"(\d+)<([^>]*)>")


@dataclass(frozen=True, slots=True)
class TracedCall:
    """One system call.

    Attributes:
        name: of the call.
        arguments: as strace shows them.
        result: what it returned; -1 where it failed.
        at: when it began, in seconds; 0 where the trace has no times.
        working: the working folder, as far as an earlier call or this one named it.
    """

    name: str
    arguments: str
    result: int
    at: float = 0.0
    working: str = ""

    @property
    def paths(self) -> list[str]:
        """The paths that it names."""
        return [
            normpath(f"{base or self.working}/{path}" if path[:1] != "/" else path)
            for base, path in _PLACE.findall(self.arguments)
        ]

    @property
    def descriptors(self) -> list[tuple[str, str]]:
        """The descriptors that it names, each with the path of its file."""
        return _DESCRIPTOR.findall(self.arguments)


def read_traced_calls(trace: str) -> Iterator[TracedCall]:
    """The calls of a trace, those that failed too."""
    begun: dict[str, tuple[float, str]] = {}
    working = ""
    for line in trace.splitlines():
        timed = _TIME.match(line)
        at, text = (float(timed[2]), timed[1] + line[timed.end() :]) if timed else (0.0, line)
        if text.endswith(_UNFINISHED):
            begun[text.split()[0]] = at, text.removesuffix(_UNFINISHED)
            continue
        if resumed := _RESUMED.match(text):
            at, first = begun.pop(resumed[1], (at, ""))
            text = first + resumed[2]
        if call := _CALL.match(text):
            if named := _WORKING.search(call[2]):
                working = named[1]
            yield TracedCall(call[1], call[2], int(call[3]), at, working)
