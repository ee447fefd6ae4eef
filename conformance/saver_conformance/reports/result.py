"""A ``report.json``, read and checked: what the pages are made of."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from saver_conformance.cases.axis_text import unusual
from saver_conformance.cases.case import Mode
from saver_conformance.errors import ResultError
from saver_conformance.folder.untrusted_json import UntrustedJsonError, parse_object
from saver_conformance.safe_text import excerpt, printable
from saver_conformance.verdict.verdict import UNCHECKED, Status

VERSION = 2
"""Of the form of ``report.json``, which ``report.schema.json`` describes.

Version 2 has ``environment``, and the axes of its cases have the names of this version;
a report of version 1 is refused.
"""

REPORT_FILE = "report.json"
SHOWN_LINES = 24
"""Lines of a finding that are shown; ``report.json`` has all of them."""
SHOWN_REASON_LINES = 4
"""The same, of a reason that many clauses share; it is told in full where it is said once."""
SHOWN_CHARACTERS = 4000
"""Of a finding or a reason, however long its lines are."""


_PLACES = {
    "mode": "mode",
    "rank": "rank",
    "file": "file",
    "tensor": "tensor",
    "dtype": "dtype",
    "shape": "shape",
    "offset": "offset",
    "differing": "differing bytes",
    "seed": "seed",
}
"""What a finding's place is made of, in order, and its words."""


@dataclass(frozen=True, slots=True)
class Clause:
    """One demand, in the words of the run's spec.

    Attributes:
        id: ``AREA-NNN``.
        level: how binding it is.
        modes: shell-style patterns of the modes that it applies to.
        title: a few words.
        text: the demand, one sentence.
        reason: why it is demanded.
    """

    id: str
    level: Literal["MUST", "SHOULD", "MAY"]
    modes: tuple[str, ...]
    title: str
    text: str
    reason: str

    @property
    def area(self) -> str:
        """The part of the id before the number."""
        return self.id.partition("-")[0]

    def applies_to(self, modes: Iterable[str]) -> bool:
        """Whether it demands something in one of ``modes``."""
        return any(Mode.parse(mode).matches(self.modes) for mode in modes)


@dataclass(frozen=True, slots=True)
class Evidence:
    """One finding.

    Attributes:
        where: what is known of its place, as pairs of name and value.
        case: the unusual values of its case, in words.
        expected: what should be there.
        found: what is there.
        replay: the command that shows it again; empty when there is none.
    """

    where: tuple[tuple[str, str], ...]
    case: tuple[str, ...]
    expected: str
    found: str
    replay: str


@dataclass(frozen=True, slots=True)
class Share:
    """How often a clause was checked in some of a mode's cases.

    Attributes:
        cases: number of cases in which it was checked.
        planned: number of cases in which it should have been checked.
        findings: number of findings.
    """

    cases: int
    planned: int
    findings: int


@dataclass(frozen=True, slots=True)
class Row:
    """One clause in one mode.

    Attributes:
        clause: the clause's id.
        mode: the mode's name.
        status: what came out.
        cases: number of cases in which it was checked.
        planned: number of cases in which it should have been checked.
        findings: number of findings.
        reason: why it was not checked everywhere, or is waived.
        evidence: the finding of the simplest case; None when there is none.
        empty: what of it is about saves into an empty folder; None in reports of the first days.
    """

    clause: str
    mode: str
    status: Status
    cases: int
    planned: int
    findings: int
    reason: str
    evidence: Evidence | None
    empty: Share | None = None

    @property
    def used(self) -> Share | None:
        """What of it is about saves into a folder in which something lay; None as ``empty``."""
        if self.empty is None:
            return None
        return Share(
            self.cases - self.empty.cases,
            self.planned - self.empty.planned,
            self.findings - self.empty.findings,
        )

    @property
    def area(self) -> str:
        """The part of the clause's id before the number."""
        return self.clause.partition("-")[0]


@dataclass(frozen=True, slots=True)
class Cause:
    """All findings of one clause.

    Attributes:
        clause: the clause's id.
        modes: the modes in which it is broken.
        cases: number of cases in which it is broken.
        findings: number of findings.
        example: the finding of the simplest case of all modes.
    """

    clause: str
    modes: tuple[str, ...]
    cases: int
    findings: int
    example: Evidence


@dataclass(frozen=True, slots=True)
class Failure:
    """Saves from which not every rank returned, with one exception at one place.

    Attributes:
        kind: ``raised``, ``hung`` or ``died``.
        place: the saver's own innermost frame; empty when none is known.
        messages: how ranks ended, in one line each, the most frequent first.
        when: with which values of the axes it happens, in words.
        ends: the reasons of clauses that were not checked because of it.
        clauses: ids of the clauses about ranks that are broken by it.
        modes: the modes in which it happened.
        cases: number of cases in which it happened.
        example: the finding of the simplest case; None when there is none.
    """

    kind: str
    place: str
    messages: tuple[str, ...]
    when: tuple[str, ...]
    ends: frozenset[str]
    clauses: tuple[str, ...]
    modes: tuple[str, ...]
    cases: int
    example: Evidence | None


@dataclass(frozen=True, slots=True)
class Unchanged:
    """Failing cases in which the save changed no file.

    Attributes:
        modes: their modes.
        cases: their number.
        replay: the command that runs the simplest of them again.
    """

    modes: tuple[str, ...]
    cases: int
    replay: str


@dataclass(frozen=True, slots=True)
class NotRun:
    """Cases that were not run for one reason.

    Attributes:
        status: ``unavailable``, ``error`` or ``skipped``.
        reason: why.
        modes: the modes of the cases.
        cases: their number.
        replay: the command that runs the first of them.
    """

    status: str
    reason: str
    modes: tuple[str, ...]
    cases: int
    replay: str


@dataclass(frozen=True, slots=True)
class Result:
    """One run.

    Attributes:
        saver: the saver's address.
        profile: name of the profile.
        modes: the claimed modes.
        exit_code: the verdict.
        executed: number of cases that were run and checked.
        expected: number of cases that were planned.
        seconds: duration.
        time: when it ended, in ISO 8601.
        versions: by name of the distribution.
        machine: what it ran on, in words.
        seeds: of the cases, in words; empty without cases.
        pairs: of values of the axes that are covered, in words; empty without a plan.
        clauses: by id, in the order of the spec.
        rows: by clause and claimed mode, in that order; ``not claimed`` where the saver has no
            part in the clause.
        failures: saves from which not every rank returned; they leave much unchecked.
        unchanged: the cases in which the save did nothing; None when there is none.
        interrupted: whether it was ended before every planned case was run.
        causes: by clause, the simplest first.
        waiver_faults: what is wrong with the waivers.
        not_run: the cases that were not run.
        spec_version: which spec it is judged by; empty in reports of the first days.
        case_set: the name of the set of planned cases; empty where nothing was planned.
        shard: the part of the plan that was run, such as ``2/8``; empty for the whole.
    """

    saver: str
    profile: str
    modes: tuple[str, ...]
    exit_code: int
    executed: int
    expected: int
    seconds: float
    time: str
    versions: Mapping[str, str]
    machine: str
    seeds: str
    pairs: str
    clauses: Mapping[str, Clause]
    rows: tuple[Row, ...]
    failures: tuple[Failure, ...]
    unchanged: Unchanged | None
    interrupted: bool
    causes: Mapping[str, Cause]
    waiver_faults: tuple[str, ...]
    not_run: tuple[NotRun, ...]
    spec_version: str = ""
    case_set: str = ""
    shard: str = ""

    @property
    def areas(self) -> tuple[str, ...]:
        """The areas of its clauses, in the order of the spec."""
        return tuple(dict.fromkeys(clause.area for clause in self.clauses.values()))

    def broken(self) -> tuple[str, ...]:
        """Ids of the MUSTs that are broken in some mode."""
        return tuple(dict.fromkeys(row.clause for row in self.rows if row.status == "fail"))

    def count(self, status: Status) -> int:
        """Number of clauses that have ``status`` in some mode."""
        return len({row.clause for row in self.rows if row.status == status})


def read_results(places: Iterable[Path]) -> tuple[Result, ...]:
    """The reports at ``places``, as ``find_reports`` finds them.

    Raises:
        ResultError: one cannot be read.
    """
    return tuple(read_result(path) for path in find_reports(places))


def find_reports(places: Iterable[Path]) -> Iterator[Path]:
    """The reports at ``places``: files, folders that hold one, and all below other folders.

    Raises:
        ResultError: there is none at one of them.
    """
    for place in places:
        if place.is_file():
            yield place
        elif (place / REPORT_FILE).is_file():
            yield place / REPORT_FILE
        elif below := sorted(place.rglob(REPORT_FILE)):
            yield from below
        else:
            raise ResultError(f"there is no {REPORT_FILE} in {place}")


def read_result(path: Path) -> Result:
    """The report at ``path``; raises as ``read_report`` does."""
    return parse(read_report(path))


def read_report(path: Path) -> Mapping[str, Any]:
    """The plain content of the report at ``path``, which keeps to the schema.

    Raises:
        ResultError: it is none, or one of another version.
    """
    try:
        report = parse_object(path.read_bytes())
    except (OSError, UntrustedJsonError) as error:
        raise ResultError(f"{path} cannot be read: {error}") from error
    if (version := report.get("version")) != VERSION:
        raise ResultError(
            f"{path}: expected a report of version {VERSION}, found version {version!r:.80}; "
            "judge the saver again with this version of the suite"
        )
    if fault := _first_fault(report):
        raise ResultError(f"{path} is no report: {fault}")
    return report


def schema() -> dict[str, Any]:
    """The JSON Schema of ``report.json``."""
    source = resources.files(__package__).joinpath("report.schema.json")
    plain: dict[str, Any] = json.loads(source.read_text(encoding="utf-8"))
    return plain


def parse(report: Mapping[str, Any]) -> Result:
    """The content of a ``report.json`` that keeps to the schema."""
    totals, around = report["totals"], report["environment"]
    seeds, pairs = report["seeds"], report["pairs"]
    return Result(
        saver=printable(report["saver"]),
        profile=printable(report["profile"]),
        modes=tuple(report["modes"]),
        exit_code=report["exit_code"],
        executed=totals["executed"],
        expected=totals["expected"],
        seconds=totals["seconds"],
        time=around["time"],
        versions={printable(name): printable(text) for name, text in around["versions"].items()},
        machine=_describe_machine(around),
        seeds=f"{seeds['smallest']} to {seeds['largest']}" if seeds else "",
        pairs=f"{pairs['covered']} of {pairs['possible']}" if pairs else "",
        clauses={clause: _parse_clause(clause, item) for clause, item in report["spec"].items()},
        rows=tuple(
            _parse_row(item) for item in report["clauses"] if item["mode"] in report["modes"]
        ),
        # Reports of the first days do not have what is requested with ``get``.
        failures=tuple(_parse_failures(report.get("failures", ()))),
        unchanged=_parse_unchanged(report.get("unchanged")),
        interrupted=report.get("interrupted", False),
        causes={item["clause"]: _parse_cause(item) for item in report["causes"]},
        waiver_faults=tuple(printable(fault) for fault in report["waiver_faults"]),
        not_run=tuple(_parse_not_run(report["not_run"])),
        spec_version=printable(report.get("spec_version", "")),
        case_set=printable(report.get("case_set") or ""),
        shard=f"{part['number']}/{part['of']}" if (part := report.get("shard")) else "",
    )


@cache
def _validator() -> Any:
    from jsonschema import Draft202012Validator  # only reports of somebody else are validated

    return Draft202012Validator(schema())


def _first_fault(report: Mapping[str, Any]) -> str:
    from jsonschema.exceptions import best_match

    fault = best_match(_validator().iter_errors(report))
    if fault is not None:
        return printable(f"{fault.json_path}: {fault.message}")
    for clause in (item["clause"] for item in (*report["clauses"], *report["causes"])):
        if clause not in report["spec"]:
            return f"{clause} does not stand in its spec"
    return ""


def _parse_clause(clause: str, plain: Mapping[str, Any]) -> Clause:
    return Clause(
        id=clause,
        level=plain["level"],
        modes=tuple(plain["modes"]),
        title=printable(plain["title"]),
        text=printable(plain["text"]),
        reason=printable(plain["reason"]),
    )


def _parse_row(plain: Mapping[str, Any]) -> Row:
    findings = plain["findings"]
    return Row(
        clause=plain["clause"],
        mode=plain["mode"],
        status=plain["status"],
        cases=plain["cases"],
        planned=plain["planned"],
        findings=len(findings) + plain.get("findings_left_out", 0),
        reason=_shorten(plain["reason"], SHOWN_REASON_LINES),
        evidence=_parse_evidence(findings[0]) if findings else None,
        empty=Share(**empty) if (empty := plain.get("empty_folder")) else None,
    )


def _parse_failures(plain: Iterable[Mapping[str, Any]]) -> Iterator[Failure]:
    """Failures with one exception at one place as one, whatever the axes' values are."""
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for item in plain:
        key = (item["kind"], item["exception"], item["place"])
        groups.setdefault(key, []).append(item)
    for (kind, exception, place), same in groups.items():
        examples = [item["example"] for item in same if item.get("example")]
        messages = [text for item in same for text in item.get("messages", ())]
        ends = {end for item in same for end in item.get("ends", ())}
        yield Failure(
            # A rank that waits for one that raised is not what went wrong.
            kind="raised" if exception and kind == "hung" else kind,
            place=printable(place),
            messages=_distinct(_shorten(text, 1) for text in messages or [exception or kind]),
            when=_distinct(printable(item["when"]) for item in same if item.get("when")),
            ends=frozenset(_shorten(f"{UNCHECKED}{end}", SHOWN_REASON_LINES) for end in ends),
            clauses=_distinct(clause for item in same for clause in item["clauses"]),
            modes=_distinct(mode for item in same for mode in item["modes"]),
            cases=sum(item["cases"] for item in same),
            example=_parse_evidence(examples[0]) if examples else None,
        )


def _parse_unchanged(plain: Mapping[str, Any] | None) -> Unchanged | None:
    if plain is None:
        return None
    return Unchanged(tuple(plain["modes"]), plain["cases"], printable(plain["replay"]))


def _distinct(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))


def _parse_cause(plain: Mapping[str, Any]) -> Cause:
    return Cause(
        clause=plain["clause"],
        modes=tuple(plain["modes"]),
        cases=plain["cases"],
        findings=plain["findings"],
        example=_parse_evidence(plain["example"]),
    )


def _parse_evidence(plain: Mapping[str, Any]) -> Evidence:
    case = plain["case"]
    found = evidence_of({"mode": case["mode"], **plain, "seed": case["seed"]})
    described = tuple(map(printable, unusual(case)))
    return replace(found, case=described, replay=printable(plain["replay"]))


def evidence_of(plain: Mapping[str, Any]) -> Evidence:
    """What ``plain`` tells of a finding, by the names of the schema; without case and replay."""
    place = ((word, plain.get(name)) for name, word in _PLACES.items())
    return Evidence(
        where=tuple((word, printable(str(at))) for word, at in place if at is not None),
        case=(),
        expected=_shorten(plain["expected"]),
        found=_shorten(plain["found"]),
        replay="",
    )


def _parse_not_run(records: Iterable[Mapping[str, Any]]) -> Iterator[NotRun]:
    by_reason: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for record in records:
        key = record["status"], _shorten(record["reason"])
        by_reason.setdefault(key, []).append(record)
    for (status, reason), same in by_reason.items():
        modes = tuple(dict.fromkeys(record["case"]["mode"] for record in same))
        yield NotRun(status, reason, modes, len(same), printable(same[0].get("replay", "")))


def _shorten(text: str, lines: int = SHOWN_LINES) -> str:
    shown = excerpt(text, lines)
    return shown if len(shown) <= SHOWN_CHARACTERS else f"{shown[:SHOWN_CHARACTERS]}..."


def _describe_machine(around: Mapping[str, Any]) -> str:
    accelerators = around["accelerators"]
    device = f"{accelerators} accelerators" if accelerators else "no accelerator"
    return printable(f"{around['system']}, {around['cores']} CPU cores, {device}")
