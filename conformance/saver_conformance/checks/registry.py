"""Which check stands for which clause, and how all of a case's checks are run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from saver_conformance.cases.case import Case
from saver_conformance.checks.evidence import BlockedError, Evidence
from saver_conformance.observation.finding import Defect, Finding
from saver_conformance.observation.observation import Observation
from saver_conformance.spec import SPEC
from saver_conformance.verdict.failures import CLAUSES

CheckFunction = Callable[[Evidence], Iterator[Defect]]
Condition = Callable[[Case], bool]


@dataclass(frozen=True, slots=True)
class Check:
    """The check of one clause.

    Attributes:
        clause: the clause's id.
        function: yields a defect for every place that breaks the clause.
        when: the cases, among those of the clause's modes, in which the clause demands something.
        structural: whether the folder alone tells, without the training that it comes from.
        in_each_folder: whether the clause is about each folder of weights, not about the whole
            output folder.
        of_readers: whether it looks at what readers made of the folder.
    """

    clause: str
    function: CheckFunction
    when: Condition
    structural: bool = False
    in_each_folder: bool = False
    of_readers: bool = False

    def applies_to(self, case: Case, asked: ReadersAsked = "no") -> bool:
        """Whether the clause demands something in ``case``."""
        if SPEC[self.clause].area == PORTABLE and asked == "no":
            return False
        if self.of_readers and asked != "in this case":
            return False
        return case.saved_as.matches(SPEC[self.clause].modes) and self.when(case)

    def find(self, evidence: Evidence) -> Iterator[Finding]:
        """The findings of the clause in ``evidence``.

        Raises:
            BlockedError: the check cannot be made.
        """
        for defect in self.function(evidence):
            yield defect.finding(self.clause, evidence.case)


@dataclass(frozen=True, slots=True)
class Results:
    """What the checks of one observation said.

    Attributes:
        ran: findings by clause, of every check that was made; empty findings are a pass.
        blocked: reason by clause, of every check that could not be made because of a defect that
            another clause reports.
    """

    ran: Mapping[str, tuple[Finding, ...]]
    blocked: Mapping[str, str]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings, in the order of the spec."""
        return tuple(finding for findings in self.ran.values() for finding in findings)

    @property
    def broken(self) -> frozenset[str]:
        """Ids of the clauses with a finding."""
        return frozenset(clause for clause, findings in self.ran.items() if findings)


ReadersAsked = Literal["no", "in other cases", "in this case"]
"""Whether a run has folders read by the programs that serve models; ``PORTABLE`` is about them."""
PORTABLE = "PORTABLE"
_ABOUT_WEIGHTS = ("FORMAT", "TENSOR", "ADAPTER")
_CHECKS: dict[str, Check] = {}


def _always(case: Case) -> bool:
    return True


def check(
    clause: str,
    *,
    when: Condition = _always,
    structural: bool = False,
    in_each_folder: bool | None = None,
    of_readers: bool = False,
) -> Callable[[CheckFunction], CheckFunction]:
    """Register the decorated function as the check of ``clause``.

    The clause is named here only; the function yields defects, which become its findings.

    Args:
        clause: the clause's id.
        when: see ``Check``.
        structural: see ``Check``.
        in_each_folder: see ``Check``; None: so for the areas that are about weights.
        of_readers: see ``Check``.

    Raises:
        ValueError: there is no such clause, or it has a check already.
    """

    def register(function: CheckFunction) -> CheckFunction:
        if clause not in SPEC:
            raise ValueError(f"{function.__name__}: the spec has no clause {clause}")
        if clause in _CHECKS:
            raise ValueError(f"{clause} has two checks")
        each = SPEC[clause].area in _ABOUT_WEIGHTS if in_each_folder is None else in_each_folder
        _CHECKS[clause] = Check(clause, function, when, structural, each, of_readers)
        return function

    return register


def checks() -> tuple[Check, ...]:
    """All checks, in the order of the spec."""
    return tuple(_CHECKS[clause] for clause in SPEC if clause in _CHECKS)


def applicable(case: Case, asked: ReadersAsked = "no") -> tuple[str, ...]:
    """Ids of the clauses that demand something in ``case``, in the order of the spec."""
    return tuple(item.clause for item in checks() if item.applies_to(case, asked))


def run(observation: Observation, asked: ReadersAsked = "no") -> Results:
    """Make every check that applies to the observation's case.

    When a rank did not return, only the clauses about ranks are checked: a folder that was left
    in the middle of a save says nothing about its contents. A case that was refused, as it may be,
    has the clauses about the end of the call only.
    """
    evidence = Evidence(observation)
    if observation.refused:
        return Results(ran=dict.fromkeys(sorted(CLAUSES.values()), ()), blocked={})
    ran: dict[str, tuple[Finding, ...]] = {}
    blocked: dict[str, str] = {}
    failed = [outcome for outcome in observation.outcomes if outcome.status != "returned"]
    for item in checks():
        if not item.applies_to(observation.case, asked):
            continue
        if failed and SPEC[item.clause].area != "RANKS":
            blocked[item.clause] = str(failed[0])
            continue
        try:
            ran[item.clause] = tuple(
                finding
                for place in (evidence.places if item.in_each_folder else (evidence,))
                for finding in item.find(place)
            )
        except BlockedError as reason:
            blocked[item.clause] = str(reason)
    return Results(ran=ran, blocked=blocked)
