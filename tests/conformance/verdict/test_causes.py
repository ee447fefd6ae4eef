"""Which axis values lead to a failure: learned from failed and from saved cases."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from saver_conformance.cases.case import MODES, Case, Mode
from saver_conformance.cases.profiles import cases_of
from saver_conformance.cases.strategies import make_case
from saver_conformance.verdict.causes import FailureCause, explain, learn, why_skip
from saver_conformance.verdict.failures import FailedSave

DDP = Mode("full", "ddp")
PLANNED = tuple(case for mode in MODES for case in cases_of(mode, "gate"))
ENOUGH = {"hung": 2, "died": 3}


def raised(case: Case, place: str = "s.py:1 in save") -> FailedSave:
    return FailedSave(case, "raised", "ValueError", place, "no", ("RANKS-002",))


def hung(case: Case) -> FailedSave:
    return FailedSave(case, "hung", clauses=("RANKS-001",))


def causes_where(fails: Callable[[Case], bool]) -> tuple[FailureCause, ...]:
    failures = [raised(case) for case in PLANNED if fails(case)]
    return learn(failures, [case for case in PLANNED if not fails(case)])


@pytest.mark.parametrize(
    ("fails", "values"),
    [
        (lambda case: case.dtype == "mixed", {"dtype": ("mixed",)}),
        (lambda case: case.mode.engine == "fsdp1", {"engine": ("fsdp1",)}),
        (lambda case: case.probe == "control_run", {"probe": ("control_run",)}),
        (
            lambda case: case.dtype == "bfloat16" and case.existing_save == "sharded",
            {"dtype": ("bfloat16",), "existing_save": ("sharded",)},
        ),
        (lambda case: case.max_shard_size is not None, {"max_shard_size": {20_000, 4_000}}),
        (
            lambda case: case.adapter is not None and len(case.adapter.names) > 1,
            {"names": (("default", "style"),)},
        ),
        (lambda case: True, {}),
    ],
)
def test_learn_finds_the_values_that_separate_failed_from_saved_cases(
    fails: Callable[[Case], bool], values: dict[str, object]
) -> None:
    [cause] = causes_where(fails)
    assert cause.explained
    assert {axis: set(found) for axis, found in cause.values.items()} == {
        axis: set(found)  # type: ignore[call-overload]
        for axis, found in values.items()
    }
    assert cause.cases == sum(map(fails, PLANNED))


def test_learn_tells_two_causes_of_one_exception_apart() -> None:
    def fails(case: Case) -> bool:
        return case.dtype == "mixed" or (case.persistence_threshold == "default")

    causes = causes_where(fails)
    assert {tuple(cause.values.items()) for cause in causes} == {
        (("dtype", ("mixed",)),),
        (("persistence_threshold", ("default",)),),
    }


def test_learn_keeps_other_places_apart() -> None:
    cases = cases_of(DDP, "gate")
    failures = [raised(cases[0]), raised(cases[1], "other.py:2 in write")]
    causes = learn(failures, cases[2:])
    assert {cause.place for cause in causes} == {"s.py:1 in save", "other.py:2 in write"}


def test_learn_says_so_where_the_axes_explain_nothing() -> None:
    case = make_case(DDP, {})
    [cause] = learn(
        [raised(case), raised(make_case(DDP, {}, seed=1))], [make_case(DDP, {}, seed=2)]
    )
    assert not cause.explained
    assert "no value of an axis" in cause.text


def test_the_text_names_exception_place_cases_modes_and_values() -> None:
    cases = cases_of(DDP, "gate")
    failing = [case for case in cases if case.special_values]
    [cause] = learn(list(map(raised, failing)), [case for case in cases if not case.special_values])
    assert cause.text == (
        f"the saver raised (ValueError at s.py:1 in save) in {len(failing)} cases of full-ddp: "
        "wherever special_values is yes"
    )


def test_explain_without_a_passing_case_names_no_values() -> None:
    [found] = explain([{"dtype": "mixed"}, {"dtype": "float32"}], [])
    assert (found.values, found.covered) == ({}, (0, 1))


def test_why_skip_spares_a_case_that_may_be_free_of_the_cause() -> None:
    failures = [
        hung(make_case(DDP, {"dtype": "mixed", "special_values": True})),
        hung(make_case(DDP, {"dtype": "mixed", "special_values": True, "sizes": "odd"})),
    ]
    saved = [make_case(DDP, {})]

    def skips(**values: object) -> bool:
        return why_skip(make_case(DDP, values), failures, saved, ENOUGH) is not None

    assert skips(dtype="mixed", special_values=True, tokenizer="chat")
    assert not skips(dtype="mixed")  # either of the two may be the cause
    assert not skips(special_values=True)
    assert not skips()


def test_why_skip_waits_for_enough_failures() -> None:
    case = make_case(DDP, {"dtype": "mixed"})
    assert why_skip(case, [hung(case)], [], ENOUGH) is None
    died = [FailedSave(make_case(DDP, {}, seed=n), "died", "killed") for n in range(3)]
    assert why_skip(case, died[:2], [], ENOUGH) is None
    assert why_skip(case, died, [], ENOUGH) is not None


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_why_skip_bounds_a_saver_that_always_hangs_and_one_that_does_at_a_pair(mode: Mode) -> None:
    def hangs_at(fails: Callable[[Case], bool]) -> tuple[int, int, int]:
        failures: list[FailedSave] = []
        saved: list[Case] = []
        wrongly = 0
        for case in cases_of(mode, "gate"):
            if why_skip(case, failures, saved, ENOUGH):
                wrongly += not fails(case)
            elif fails(case):
                failures.append(hung(case))
            else:
                saved.append(case)
        return len(failures), len(saved), wrongly

    assert hangs_at(lambda case: True)[:2] == (2, 0)
    number, saved, wrongly = hangs_at(
        lambda case: case.dtype == "bfloat16" and case.tokenizer == "chat"
    )
    assert number <= 6
    assert saved > (10 if mode.definition.pairs else 1)
    assert wrongly == 0
