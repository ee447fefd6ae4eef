"""The written spec as data: the clauses of ``spec.md``."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType
from typing import Literal

from saver_conformance.cases.case import Mode

Level = Literal["MUST", "SHOULD", "MAY"]

AREAS = (
    "FILES",
    "FORMAT",
    "TENSOR",
    "ADAPTER",
    "META",
    "RELOAD",
    "RANKS",
    "PURITY",
    "CRASH",
    "KEEP",
    "PORTABLE",
)


@dataclass(frozen=True, slots=True)
class Clause:
    """One demand on a saver.

    Attributes:
        id: ``AREA-NNN``; never reused for another demand.
        level: how binding it is, as in RFC 2119.
        modes: shell-style patterns of the modes that it applies to.
        since: the version of the spec that brought it.
        title: a few words.
        text: the demand, one sentence.
        reason: why it is demanded.
    """

    id: str
    level: Level
    modes: tuple[str, ...]
    since: str
    title: str
    text: str
    reason: str

    @property
    def area(self) -> str:
        """The part of the id before the number."""
        return self.id.partition("-")[0]


class SpecError(ValueError):
    """The Markdown file does not have the form that its introduction describes."""


_LEVELS: Mapping[str, Level] = {"MUST": "MUST", "SHOULD": "SHOULD", "MAY": "MAY"}
_SECTION = re.compile(r"^### ", re.MULTILINE)
_CLAUSE = re.compile(
    r"(?P<id>[A-Z]+-\d{3}) (?P<title>\S.*)\n\n"
    r"- level: (?P<level>\w+)\n"
    r"- modes: (?P<modes>\S.*)\n"
    r"- since: (?P<since>\d+\.\d+)\n\n"
    r"(?P<text>\S(?:.|\n\S)*)\n\n"
    r"Reason: (?P<reason>\S(?:.|\n\S)*)"
)
_VERSION = re.compile(r"^Version: (\d+\.\d+)$", re.MULTILINE)
_AREA_HEADING = re.compile(r"^## .*$", re.MULTILINE)


def parse(markdown: str) -> dict[str, Clause]:
    """The clauses of ``markdown`` by id, in their order.

    Raises:
        SpecError: a section is no clause, or an id occurs twice.
    """
    clauses: dict[str, Clause] = {}
    for clause in _clauses(markdown):
        if clause.id in clauses:
            raise SpecError(f"{clause.id} occurs twice in the spec")
        clauses[clause.id] = clause
    return clauses


def clauses_for(mode: Mode) -> tuple[Clause, ...]:
    """The clauses that apply to ``mode``, in the order of the spec."""
    return tuple(clause for clause in SPEC.values() if mode.matches(clause.modes))


def _clauses(markdown: str) -> Iterator[Clause]:
    _, *sections = _SECTION.split(markdown)
    for section in sections:
        # The last clause of an area is followed by the heading and introduction of the next one.
        body = _AREA_HEADING.split(section)[0].strip()
        match = _CLAUSE.fullmatch(body)
        if match is None:
            raise SpecError(f"not a clause: {body.splitlines()[0]!r}")
        area = match["id"].partition("-")[0]
        if area not in AREAS:
            raise SpecError(f"{match['id']}: no area is called {area}")
        level = _LEVELS.get(match["level"])
        if level is None:
            raise SpecError(f"{match['id']}: no level is called {match['level']}")
        yield Clause(
            id=match["id"],
            level=level,
            modes=tuple(pattern.strip() for pattern in match["modes"].split(",")),
            since=match["since"],
            title=match["title"],
            text=" ".join(match["text"].split()),
            reason=" ".join(match["reason"].split()),
        )


def parse_version(markdown: str) -> str:
    """The version of the spec, as ``MAJOR.MINOR``.

    Raises:
        SpecError: ``markdown`` does not state one, or a clause is newer.
    """
    match = _VERSION.search(markdown)
    if match is None:
        raise SpecError("expected a line 'Version: MAJOR.MINOR', found none")
    for clause in parse(markdown).values():
        if _number(clause.since) > _number(match[1]):
            raise SpecError(f"{clause.id} is newer than version {match[1]} of the spec")
    return match[1]


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


_TEXT = resources.files("saver_conformance").joinpath("spec.md").read_text(encoding="utf-8")

SPEC: Mapping[str, Clause] = MappingProxyType(parse(_TEXT))
VERSION = parse_version(_TEXT)


def spec_version() -> str:
    """What the spec is called: its version, and a digest of its clauses.

    Two specs have one name if they demand the same, in the same words and at the same levels.
    """
    lines = (f"{c.id} {c.level} {','.join(c.modes)} {c.text}" for c in SPEC.values())
    return f"{VERSION}+{hashlib.sha256(chr(10).join(lines).encode()).hexdigest()[:8]}"
