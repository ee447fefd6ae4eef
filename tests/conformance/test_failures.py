"""How a failed save is known again: its kind, its exception and its place."""

from __future__ import annotations

import traceback

import pytest

from saver_conformance.case import Case, Mode
from saver_conformance.failures import failure_of, read_traceback
from saver_conformance.observation import RankOutcome

CASE = Case(Mode("full", "ddp"), world_size=2)


def raise_chained() -> None:
    try:
        int("x")
    except ValueError as error:
        raise RuntimeError("outer\nsecond line: more") from error


def printed(function: object) -> str:
    try:
        function()  # type: ignore[operator]
    except BaseException:
        return traceback.format_exc()
    raise AssertionError("it returned")


def outcome(rank: int, status: str, detail: str = "", seconds: float = 0.0) -> RankOutcome:
    return RankOutcome(rank, status, detail, seconds)  # type: ignore[arg-type]


def test_read_traceback_of_a_chain_names_the_exception_that_left_the_function() -> None:
    exception, place, message = read_traceback(printed(raise_chained))
    assert (exception, message) == ("RuntimeError", "outer")
    assert place.endswith(" in raise_chained")
    assert place.startswith("tests/conformance/test_failures.py:")


def test_read_traceback_of_a_qualified_type_without_a_message() -> None:
    text = 'Traceback (most recent call last):\n  File "a/b.py", line 3, in f\n    g()\nx.y.Error'
    assert read_traceback(text) == ("x.y.Error", "a/b.py:3 in f", "")


def test_read_traceback_of_an_exception_group_finds_a_place() -> None:
    def raise_group() -> None:
        raise ExceptionGroup("several", [ValueError("one")])

    exception, place, _ = read_traceback(printed(raise_group))
    assert exception == "ExceptionGroup"
    assert place.endswith(" in raise_group")


def test_read_traceback_of_other_text_is_empty() -> None:
    assert read_traceback("Note: nothing was raised\nTotal: 3") == ("", "", "")


def test_failure_of_ranks_that_returned_is_none() -> None:
    assert failure_of(CASE, [outcome(0, "returned"), outcome(1, "returned")]) is None


def test_failure_of_a_raise_names_what_came_first() -> None:
    lost = 'Traceback:\n  File "c.py", line 1, in reduce\nRuntimeError: Connection closed'
    first = 'Traceback:\n  File "s.py", line 9, in save\nKeyError: 3'
    failure = failure_of(CASE, [outcome(0, "raised", lost, 2.0), outcome(1, "raised", first, 1.0)])
    assert failure is not None
    assert failure.name == ("raised", "KeyError", "s.py:9 in save")
    assert failure.clauses == ("RANKS-002",)


@pytest.mark.parametrize(
    ("statuses", "kind", "clauses"),
    [
        (("raised", "hung"), "hung", ("RANKS-001", "RANKS-002")),
        (("hung", "hung"), "hung", ("RANKS-001",)),
        (("died", "hung"), "died", ("RANKS-001", "RANKS-003")),
        (("returned", "raised"), "raised", ("RANKS-002",)),
    ],
)
def test_failure_of_mixed_ends_is_the_costliest(
    statuses: tuple[str, str], kind: str, clauses: tuple[str, ...]
) -> None:
    failure = failure_of(CASE, [outcome(rank, status) for rank, status in enumerate(statuses)])
    assert failure is not None
    assert (failure.kind, failure.clauses) == (kind, clauses)
