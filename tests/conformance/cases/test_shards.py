"""A plan in parts: every case once, in order, at about equal costs."""

from __future__ import annotations

import random

import pytest

from saver_conformance.cases import shards
from saver_conformance.cases.case import MODES, Case
from saver_conformance.cases.profiles import cases_of, in_order
from saver_conformance.cases.shards import Shard, case_set, split


def planned(profile: str = "smoke") -> tuple[Case, ...]:
    cases = (case for mode in MODES for case in cases_of(mode, profile))  # type: ignore[arg-type]
    return in_order(dict.fromkeys(cases))


@pytest.mark.parametrize("parts", [1, 2, 3, 8, 63])
def test_split_any_number_has_each_case_once_in_order(parts: int) -> None:
    cases = planned()
    found = split(cases, parts)
    assert len(found) == parts
    assert all(found)
    assert tuple(case for part in found for case in part) == cases
    assert split(cases, parts) == found


def test_split_few_parts_balances_the_estimated_seconds() -> None:
    cases = planned("survey")
    costs = dict(zip(cases, shards._costs(cases), strict=True))
    sums = [sum(costs[case] for case in part) for part in split(cases, 4)]
    assert max(sums) - min(sums) <= 2 * max(costs.values())


def test_split_one_costly_case_leaves_no_part_empty() -> None:
    cases = list(planned())
    costly = next(case for mode in MODES for case in cases_of(mode, "gate") if case.after)
    for at in (0, len(cases) // 2, len(cases)):
        mixed = [*cases[:at], costly, *cases[at:]]
        assert all(split(mixed, len(mixed)))


def test_split_more_parts_than_cases_raises() -> None:
    with pytest.raises(ValueError, match="at most one shard a case"):
        split(planned()[:2], 3)


def test_case_set_any_order_has_one_name() -> None:
    cases = list(planned())
    name = case_set(cases)
    random.Random(1).shuffle(cases)
    assert case_set(cases) == name
    assert case_set(cases[1:]) != name


@pytest.mark.parametrize("text", ["", "2", "0/3", "4/3", "1/0", "-1/3", "1/3/5", "a/b", "1 / 2"])
def test_shard_wrong_text_raises(text: str) -> None:
    with pytest.raises(ValueError, match="shard"):
        Shard.parse(text)


def test_shard_text_is_read_back() -> None:
    assert Shard.parse("2/8") == Shard(2, 8)
    assert str(Shard(2, 8)) == "2/8"
