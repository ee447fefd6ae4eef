"""The search for the release that broke a case, with a runner that only counts."""

from __future__ import annotations

from dataclasses import replace
from math import ceil, log2

import pytest
from tests.helpers.verdicts import CLAIMED, make_record, make_verdict

from saver_conformance.commands.bisect import outcome_of
from saver_conformance.environments.bisect import Outcome, find_break
from saver_conformance.environments.releases import between, choose_versions
from saver_conformance.errors import BisectError
from saver_conformance.reports.report_json import to_result

VERSIONS = tuple(f"1.{number}" for number in range(20))


def judge(first_broken: int, unknown: frozenset[int] = frozenset()):
    asked: list[int] = []

    def ask(version: str) -> Outcome:
        number = VERSIONS.index(version)
        asked.append(number)
        if number in unknown:
            return "unknown"
        return "broken" if number >= first_broken else "holds"

    return ask, asked


@pytest.mark.parametrize("first", range(1, len(VERSIONS)))
def test_find_break_every_place_is_found_in_few_steps(first: int) -> None:
    ask, asked = judge(first)
    found = find_break(VERSIONS, ask)
    assert (found.holds, found.broken) == (VERSIONS[first - 1], VERSIONS[first])
    assert found.between == ()
    assert len(asked) == len(set(asked)) <= 2 + ceil(log2(len(VERSIONS)))
    assert [version for version, _ in found.judged] == [VERSIONS[number] for number in asked]


def test_find_break_unknown_versions_are_stepped_over() -> None:
    ask, _ = judge(12, frozenset({9, 10}))
    found = find_break(VERSIONS, ask)
    assert (found.holds, found.broken, found.between) == ("1.11", "1.12", ())


def test_find_break_unknown_at_the_break_is_told() -> None:
    ask, asked = judge(12, frozenset({11, 12}))
    found = find_break(VERSIONS, ask)
    assert (found.holds, found.broken, found.between) == ("1.10", "1.13", ("1.11", "1.12"))
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize(
    ("first", "unknown", "message"),
    [
        (0, frozenset(), "holds with 1.0, found one that is broken"),
        (99, frozenset(), "is broken with 1.19, found one that holds"),
        (5, frozenset({0}), "could not be judged"),
    ],
)
def test_find_break_wrong_end_is_told(first: int, unknown: frozenset[int], message: str) -> None:
    with pytest.raises(BisectError, match=message):
        find_break(VERSIONS, judge(first, unknown)[0])


def test_find_break_one_version_is_told() -> None:
    with pytest.raises(BisectError, match="at least two"):
        find_break(["1.0"], judge(0)[0])


def test_between_final_releases_in_order() -> None:
    releases = ["0.21.2", "0.20.0", "0.9.0", "0.21.0rc1", "0.18.0", "0.22.0", "0.18.0.dev1"]
    assert between(releases, "0.18.0", "0.21.2") == ("0.18.0", "0.20.0", "0.21.2")
    with pytest.raises(BisectError):
        between(releases, "new", "0.21.2")


def test_choose_versions_a_list_asks_no_index() -> None:
    assert choose_versions("0.20.0, 0.21.0", "no-such-package") == ("0.20.0", "0.21.0")


def test_outcome_of_report_and_clause() -> None:
    single = CLAIMED[0]
    broken = make_record(single, broken=("TENSOR-001",), unchecked=("TENSOR-006",))
    result = to_result(make_verdict("pkg:save", [broken], modes=[single]))
    assert outcome_of(result, None) == ("broken", "TENSOR-001")
    assert outcome_of(result, "TENSOR-001")[0] == "broken"
    assert outcome_of(result, "TENSOR-006")[0] == "unknown"
    assert outcome_of(result, "FILES-001")[0] == "holds"
    good = to_result(make_verdict("pkg:save"))
    assert outcome_of(good, None)[0] == "holds"
    assert outcome_of(replace(good, exit_code=2), None)[0] == "unknown"
