"""The reports of all parts of a run, put together to the verdict of the whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saver_conformance.cases.shards import case_set
from saver_conformance.errors import ShardError
from saver_conformance.execution.conclude import Terms, conclude
from saver_conformance.reports.environment import RunEnvironment
from saver_conformance.reports.result import find_reports, read_report
from saver_conformance.reports.shard_records import parse_paces, parse_part, parse_records
from saver_conformance.spec import spec_version
from saver_conformance.verdict.part import Part
from saver_conformance.verdict.verdict import CaseRecord, Pace, Verdict


@dataclass(frozen=True, slots=True)
class _PartialReport:
    """One report, with what it says about the part that it has."""

    path: Path
    plain: Mapping[str, Any]
    part: Part


_EQUAL: Mapping[str, Callable[[_PartialReport], object]] = {
    "saver": lambda item: item.plain["saver"],
    "address of the saver": lambda item: item.plain["shard"]["address"],
    "spec version": lambda item: item.plain.get("spec_version"),
    "profile": lambda item: item.plain["profile"],
    "case set": lambda item: item.plain.get("case_set"),
    "number of shards": lambda item: item.part.shard.of,
    "modes": lambda item: [mode.name for mode in item.part.modes],
    "clauses that the saver has no part in": lambda item: item.part.without,
    "waivers": lambda item: [str(waiver) for waiver in item.part.waivers],
    "library versions": lambda item: item.plain["environment"]["versions"],
}
"""What reports of one run have in common."""


def merge(places: Iterable[Path]) -> tuple[Verdict, RunEnvironment]:
    """The verdict of the whole run that the reports at ``places`` are the parts of, and its place.

    It is concluded from the records of all cases, as the verdict of a run in one piece is.

    Raises:
        ResultError: a report cannot be read.
        ShardError: they are not the parts of one run, or not all of them.
    """
    parts = [_read(path) for path in dict.fromkeys(find_reports(places))]
    _expect_one_run(parts)
    parts.sort(key=lambda item: item.part.shard.number)
    _expect_each_once(parts)
    try:
        records = tuple(record for item in parts for record in parse_records(item.plain))
    except ValueError as error:
        raise ShardError(f"a case cannot be read by this version of the suite: {error}") from error
    first = parts[0]
    planned = case_set(record.case for record in records)
    if planned != first.plain["case_set"]:
        raise ShardError(
            f"expected the cases of the set {first.plain['case_set']}, found those of {planned}: "
            "a report has other cases than its run had"
        )
    return _conclude(parts, records), _environment(parts)


def _read(path: Path) -> _PartialReport:
    plain = read_report(path)
    if plain.get("shard") is None:
        raise ShardError(f"{path} is the report of a whole run; expected one of run --shard")
    try:
        return _PartialReport(path, plain, parse_part(plain["shard"]))
    except ValueError as error:
        raise ShardError(f"{path}: {error}") from error


def _expect_one_run(parts: Sequence[_PartialReport]) -> None:
    first = parts[0]
    for name, of in _EQUAL.items():
        for other in parts[1:]:
            if of(other) != of(first):
                raise ShardError(
                    f"the reports are not of one run: they differ in the {name}; "
                    f"{first.path}: {_tell(of(first), of(other))}; "
                    f"{other.path}: {_tell(of(other), of(first))}"
                )
    if first.plain.get("spec_version") != spec_version():
        raise ShardError(
            f"the reports are of the spec {first.plain.get('spec_version')}, and this is "
            f"{spec_version()}; merge them with the version of the suite that ran them"
        )


def _tell(value: object, other: object) -> object:
    """``value``; of a mapping what ``other`` does not have."""
    if not (isinstance(value, Mapping) and isinstance(other, Mapping)):
        return value
    own = {name: text for name, text in value.items() if other.get(name) != text}
    return ", ".join(f"{name} {text}" for name, text in own.items()) or "none of these"


def _expect_each_once(parts: Sequence[_PartialReport]) -> None:
    of, seen = parts[0].part.shard.of, dict[int, Path]()
    for item in parts:
        number = item.part.shard.number
        if number in seen:
            raise ShardError(f"shard {number}/{of} is there twice: {seen[number]} and {item.path}")
        seen[number] = item.path
    if missing := [str(number) for number in range(1, of + 1) if number not in seen]:
        raise ShardError(
            f"expected {of} shards, found {len(seen)}; there is no report of shard "
            f"{', '.join(missing)}"
        )


def _conclude(parts: Sequence[_PartialReport], records: tuple[CaseRecord, ...]) -> Verdict:
    first = parts[0]
    terms = Terms(
        saver=first.plain["saver"],
        address=first.plain["shard"]["address"],
        profile=first.plain["profile"],
        modes=first.part.modes,
        without=first.part.without,
        waivers=first.part.waivers,
        case_set=first.plain["case_set"],
    )
    return conclude(
        terms,
        records,
        _add(pace for item in parts for pace in parse_paces(item.plain["shard"]["paces"])),
        sum(item.plain["totals"]["seconds"] for item in parts),
        interrupted=any(item.plain.get("interrupted", False) for item in parts),
    )


def _add(paces: Iterable[Pace]) -> tuple[Pace, ...]:
    """The speeds by engine, of all parts together."""
    by_engine: dict[str, Pace] = {}
    for pace in paces:
        before = by_engine.get(pace.engine, Pace(pace.engine, 0, 0.0))
        steps = {
            step: before.steps.get(step, 0.0) + pace.steps.get(step, 0.0)
            for step in dict.fromkeys((*before.steps, *pace.steps))
        }
        by_engine[pace.engine] = Pace(
            pace.engine, before.cases + pace.cases, before.seconds + pace.seconds, steps
        )
    return tuple(by_engine.values())


def _environment(parts: Sequence[_PartialReport]) -> RunEnvironment:
    """Where the parts ran: the last of them, with the fewest cores and accelerators."""
    around = [item.plain["environment"] for item in parts]
    return RunEnvironment(
        time=max(item["time"] for item in around),
        versions=dict(around[0]["versions"]),
        system=", ".join(dict.fromkeys(item["system"] for item in around)),
        cores=min(item["cores"] for item in around),
        accelerators=min(item["accelerators"] for item in around),
    )
